"""Inputs: what a command was given, as one picture after another."""
