"""Saliency maps: methods, the explained layer, backends and the explainer."""
