"""Pictures: found on disk, decoded, and turned into the pixels that a model sees."""
