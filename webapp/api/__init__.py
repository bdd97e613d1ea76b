"""The JSON API, the Open Inference Protocol, and their document."""
