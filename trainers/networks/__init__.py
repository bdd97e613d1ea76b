"""Networks: where backbones come from, and the classifier on top."""
