"""Evaluation of trained networks: scores, figures, predictions on new images, export."""

BATCH = 32
"""Default number of images per batch."""

OPSET = 18
"""Lowest ONNX opset that PyTorch exports directly, and the one that most programs read."""
