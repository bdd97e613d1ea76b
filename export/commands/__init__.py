"""One module per export command."""
