"""Options that say how a data set is read and which of its images are taken, for all commands that read one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce, wraps
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import seed_option

RECIPES = ("article-imagenet", "article-pubfig")
"""Named here as well: the module that has them is slow to import."""


def numbers(text: str) -> tuple[float, ...]:
    """`72/18/10` as numbers: whole ones as int, others as float."""
    parts = text.split("/")
    if not all(re.fullmatch(r"[0-9]{1,10}|[0-9]{0,3}\.[0-9]{1,9}", part) for part in parts):
        raise click.BadParameter(f"{text!r} is not numbers divided by '/', such as 72/18/10")
    return tuple(float(part) if "." in part else int(part) for part in parts)


def share(text: str) -> float:
    """A share of a side, 0 to 10: beyond that a face is lost in its surroundings, and 'nan' is no number."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise click.BadParameter(f"{text!r} is not a number from 0 to 10")
    return value


_READING = (
    click.option(
        "--layout",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Shape in which the data set comes; auto tells it by its files.",
    ),
    click.option(
        "--label-level",
        type=click.IntRange(min=0),
        metavar="N",
        default=1,
        show_default=True,
        help="Plain folders: the level that names the class; 0 for unlabeled images.",
    ),
    click.option(
        "--noise",
        type=click.Choice(["0", "1", "5", "25", "50"]),
        default="0",
        show_default=True,
        help="Imagenette, Imagewoof: percentage of wrong training labels.",
    ),
    click.option(
        "--list",
        "url_list",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="PubFig: list of URLs, where it lies elsewhere.",
    ),
    click.option(
        "--crop/--no-crop",
        default=True,
        show_default=True,
        help="PubFig: cut faces out where their rectangle is known.",
    ),
    click.option(
        "--margin",
        type=share,
        metavar="SHARE",
        default=0.0,
        show_default=True,
        help="PubFig: added on each side of a face, as a share of its width and height.",
    ),
)

_TAKING = (
    click.option(
        "--classes",
        multiple=True,
        metavar="NAME|GLOB|@FILE",
        help="Take these alone: names, WordNet ids, patterns, or a file of them; '!NAME' leaves out. Give it again for "
        "several.",
    ),
    click.option(
        "--min-per-class", type=click.IntRange(min=1), metavar="N", help="Leave out classes with fewer images."
    ),
    click.option("--num-classes", type=click.IntRange(min=1), metavar="N", help="Draw so many classes."),
    click.option(
        "--per-class",
        type=click.IntRange(min=1),
        metavar="N",
        help="Draw at most so many images of a class: in each split, or with --split altogether.",
    ),
    click.option(
        "--split",
        type=numbers,
        metavar="72/18/10|N/N/N",
        help="Deal new splits, training/validation/test, class by class: percentages, which sum to 100, fractions, "
        "which sum to 1, or else numbers of images.  [default: those of the data set]",
    ),
    click.option(
        "--stable-split",
        is_flag=True,
        help="An image stays in its split when others come or go; percentages hold on average.",
    ),
    click.option("--recipe", type=click.Choice(RECIPES), help="Splits as large as an article's, drawn evenly."),
    seed_option("Of all that is drawn: the same seed takes the same images everywhere."),
)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which images a command takes.

    Delivered are `layout`, the layout's name or `auto`; `reading`, a `ReadOptions`; and `selection`, a `Selection`.
    """

    @wraps(command)
    def with_selection(
        *,
        label_level: int,
        noise: str,
        url_list: Path | None,
        crop: bool,
        margin: float,
        classes: tuple[str, ...],
        min_per_class: int | None,
        num_classes: int | None,
        per_class: int | None,
        split: tuple[float, ...] | None,
        stable_split: bool,
        recipe: str | None,
        seed: int,
        **options: Any,
    ) -> Any:
        from saliency_pipeline.datasets.layout import ReadOptions
        from saliency_pipeline.subsets.select import Selection

        selection = Selection(classes, min_per_class, num_classes, per_class, split or (), stable_split, seed, recipe)
        return command(
            reading=ReadOptions(label_level, int(noise), url_list, crop, margin),
            selection=selection,
            **options,
        )

    # a decorator that comes first is applied last
    return reduce(lambda decorated, option: option(decorated), reversed(_READING + _TAKING), with_selection)
