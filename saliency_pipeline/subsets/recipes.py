"""Recipes: the splits that publications used, by name. How images are drawn for them stands in `select.py`."""

from __future__ import annotations

RECIPES = {
    "article-imagenet": (8_828, 2_057, 1_143),
    "article-pubfig": (2_218, 555, 309),
}
"""Images for training, validation and test.

The article is "How Could Saliency Map Help to Improve Model Performance" (Wang & Xu, 2020). It gives these counts, for
PubFig besides that they come of 90/10 and then 80/20, and nothing more: which classes, people and images it took, and
how they were drawn, is not known. So a recipe repeats the sizes of its sets, not the sets: the images are drawn from
all labeled ones of the data set, whatever its own splits, the same number (or one less) from every class that a
selection leaves in, by its seed.
"""
