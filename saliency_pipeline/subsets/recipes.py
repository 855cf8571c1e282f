"""Recipes: sizes of the splits that publications used, by name."""

from __future__ import annotations

RECIPES = {
    "article-imagenet": (8_828, 2_057, 1_143),
    "article-pubfig": (2_218, 555, 309),
}
"""Numbers of images for training, validation and test.

"How Could Saliency Map Help to Improve Model Performance" (Wang & Xu, 2020) gives these counts (for PubFig also that
they result from 90/10 and then 80/20), but not its classes, people, images or sampling. So a recipe reproduces the
sizes of its splits, not the splits: images are sampled by seed from all labeled ones of the data set, whatever its own
splits, the same number (or one less) from every selected class.
"""
