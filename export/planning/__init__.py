"""The plan of a fit: checked pictures, the speed of this machine, and what can be trained in the time."""
