"""Pictures: found on disk, decoded, and turned into a model's input."""
