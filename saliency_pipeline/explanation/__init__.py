"""Explanations of single images: `explain`, its result, and how that is shown and saved."""

METHOD = "gradcam"
"""Saliency method by default."""
