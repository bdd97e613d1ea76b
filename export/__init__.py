"""Export: trained runs to ONNX, calibrated, checked against PyTorch, written as one bundle."""

from cascade.privacy import report_nothing

report_nothing()
