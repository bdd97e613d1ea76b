"""The bundle: its schema, reading it, finding it by name, and its 8-bit form."""
