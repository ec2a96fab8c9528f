"""To and from others: OpenGait's checkpoints, weights and data, and ONNX."""
