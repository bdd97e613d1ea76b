"""Evaluation: a bundle's figures on labelled pictures."""
