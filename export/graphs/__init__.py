"""ONNX graphs: built, quantized, priced."""
