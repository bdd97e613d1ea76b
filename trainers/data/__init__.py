"""Data sets: listing, auditing, augmenting and loading labelled pictures."""
