"""Calibration and rules, fitted on validation pictures."""
