"""The bundle: its schema, reading a bundle, finding one by name, and its 8-bit form."""
