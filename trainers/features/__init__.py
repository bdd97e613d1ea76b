"""Frozen features, and what is computed from them."""
