"""Our encoders in ONNX and timm."""
