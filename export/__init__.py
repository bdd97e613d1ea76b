"""Export: trained runs to ONNX, calibrated, checked against PyTorch, written as one bundle."""
