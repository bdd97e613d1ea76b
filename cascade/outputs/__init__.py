"""Outputs: what becomes of the rows of a batch."""
