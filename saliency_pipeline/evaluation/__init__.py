"""Evaluation of trained networks: metrics, figures, predictions for new images, ONNX export."""
