"""The folder of a run: what is written into it and read from it."""
