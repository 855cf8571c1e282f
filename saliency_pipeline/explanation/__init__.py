"""Explanations of single images: `explain`, its result, and how that is shown and saved."""

METHOD = "layercam"
"""Saliency method by default."""
