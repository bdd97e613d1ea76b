"""The runtime: decode, preprocess, classify with a bundle. numpy, Pillow and onnxruntime only."""
