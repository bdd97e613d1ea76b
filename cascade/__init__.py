"""The runtime: decode, preprocess, classify with a bundle. numpy, Pillow and onnxruntime only."""

from cascade.privacy import report_nothing

report_nothing()
