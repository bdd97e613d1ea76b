"""One module per training command."""
