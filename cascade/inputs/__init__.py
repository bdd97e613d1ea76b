"""Inputs: the pictures that a command is to classify, one after another."""
