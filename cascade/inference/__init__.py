"""Inference: a bundle's ONNX sessions, run as a cascade."""
