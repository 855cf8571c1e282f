"""Recipes: the splits that publications used, by name. How a selection is carried out stands in `select.py`."""

from __future__ import annotations

from dataclasses import replace

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.subsets.deal import written
from saliency_pipeline.subsets.select import Selection

RECIPES = {
    "article-imagenet": (8_828, 2_057, 1_143),
    "article-pubfig": (2_218, 555, 309),
}
"""Images for training, validation and test.

The article is "How Could Saliency Map Help to Improve Model Performance" (Wang & Xu, 2020). It gives these counts, for
PubFig besides that they come of 90/10 and then 80/20, and nothing more: which classes, people and images it took, and
how they were drawn, is not known. So a recipe repeats the sizes of its sets, not the sets.
"""


def follow(recipe: str, selection: Selection) -> Selection:
    """A selection with the splits of a recipe.

    The images are drawn from all labelled ones of the data set, whatever its own splits, the same number (or one less)
    from every class that the selection leaves in, by the selection's seed.

    Args:
        recipe: one of `RECIPES`.
        selection: which classes there are to draw from, and the seed.

    Raises:
        SalpipeError: no such recipe, or the selection contradicts it.

    >>> follow("article-pubfig", Selection(num_classes=60, seed=3)).splits
    (2218, 555, 309)
    """
    if recipe not in RECIPES:
        raise SalpipeError(f"--recipe {recipe}: unknown; choose one of {', '.join(RECIPES)}")
    contradicting = {"--split": selection.splits, "--per-class": selection.per_class}
    if given := [flag for flag, value in contradicting.items() if value]:
        raise SalpipeError(
            f"--recipe {recipe} is {written(RECIPES[recipe])} images, evenly from all classes; leave {given[0]} out"
        )
    return replace(selection, splits=RECIPES[recipe], recipe=recipe)
