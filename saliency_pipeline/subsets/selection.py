"""Settings of a subset: which classes and images are taken, how they are split, which images are kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import check_settings, documented, setting
from saliency_pipeline.subsets.recipes import RECIPES

MAX_IMAGES = 10**9
"""No part is larger: it keeps all counts and their products within 64 bits."""


@documented
@dataclass(frozen=True)
class Selection:
    """Selection of classes and images of a data set, and their split. All sampling is by hash.

    Applied in the order of the fields: first the classes, then the images, then their splits.

    Raises:
        SalpipeError: the values are out of range or contradict each other.
    """

    classes: tuple[str, ...] = setting(
        (),
        "Use only these classes: names, WordNet ids, patterns, or a file of them; '!NAME' excludes a class. May be "
        "repeated.",
        metavar="NAME|GLOB|@FILE",
    )
    min_per_class: int | None = setting(
        None, "Exclude classes with fewer images, over all splits.", range=(1, MAX_IMAGES), metavar="N"
    )
    num_classes: int | None = setting(None, "Number of classes, sampled at random.", range=(1, MAX_IMAGES), metavar="N")
    per_class: int | None = setting(
        None,
        "Maximum number of images per class, sampled at random: in each split, or in total with --split.",
        range=(1, MAX_IMAGES),
        metavar="N",
    )
    splits: tuple[float, ...] = setting(
        (),
        "Split anew into training/validation/test, stratified by class: percentages, which sum to 100, fractions, "
        "which sum to 1, or else numbers of images.",
        option="split",
        metavar="72/18/10|N/N/N",
        default_text="splits of the data set",
    )
    stable: bool = setting(
        False,
        "Keep each image in its split when images are added or removed; percentages hold on average.",
        option="stable-split",
    )
    recipe: str | None = setting(
        None, "Splits of the size of a publication's, with equal numbers per class.", choices=tuple(RECIPES)
    )
    seed: int = setting(
        0, "Random seed of all sampling: the same seed selects the same images on every machine.", range=(0, 2**32 - 1)
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.recipe is not None:
            self._follow(self.recipe)
        if self.counts is not None and self.per_class is not None:
            raise OptionError(f"--per-class {self.per_class}: {self.requested_by} sets the number; leave one out")
        if self.stable and self.shares is None:
            more = "" if self.recipe else "add --split 72/18/10 or "
            raise OptionError(f"--stable-split: needs fractions; {more}leave it out")

    def _follow(self, recipe: str) -> None:
        """Take the sizes of the recipe; no other option may set them."""
        sizes = RECIPES[recipe]
        for flag, contradicts in (
            ("--split", self.splits not in ((), sizes)),
            ("--per-class", self.per_class is not None),
        ):
            if contradicts:
                raise OptionError(
                    f"--recipe {recipe} is {format_split(sizes)} images, evenly from all classes; leave {flag} out"
                )
        object.__setattr__(self, "splits", sizes)

    @property
    def shares(self) -> tuple[Fraction, ...] | None:
        """The fraction of each part, where `splits` are fractions."""
        return fractions(self.splits) if self.splits else None

    @property
    def requested_by(self) -> str:
        """The option that sets `splits`, as it was typed."""
        return f"--recipe {self.recipe}" if self.recipe else f"--split {format_split(self.splits)}"

    @property
    def counts(self) -> tuple[int, ...] | None:
        """The images of each part, where `splits` are counts."""
        return tuple(map(int, self.splits)) if self.splits and self.shares is None else None


@documented
@dataclass(frozen=True)
class Grouping:
    """Treatment of duplicates and of images of one person, scene or patient."""

    dedupe: str | None = setting(
        None,
        "Remove duplicates, exact and near: keep-first keeps the first image per group, drop-conflicts also removes "
        "groups whose labels differ. 'salpipe audit' shows them.",
        choices=("keep-first", "drop-conflicts"),
    )
    group_duplicates: bool | None = setting(
        None,
        "Detect duplicates and keep them together: in new splits, and in the folds of train and compare.",
        default_text="with --split",
    )
    group_by: str | None = setting(
        None,
        "Keep images of one person, scene or patient together: in new splits, and in the folds of train and compare. "
        "The group is what REGEX matches in an image's key, the entry of a table FILE with the columns key and group, "
        "or the N-th folder of the key.",
        metavar="REGEX|FILE|level:N",
    )

    def __post_init__(self) -> None:
        check_settings(self)


def format_split(sizes: Sequence[float]) -> str:
    """Sizes as `--split` takes them.

    >>> format_split((72, 18, 10)), format_split((0.5, 0.5))
    ('72/18/10', '0.5/0.5')
    """
    return "/".join(map(str, sizes))


def fractions(sizes: Sequence[float]) -> tuple[Fraction, ...] | None:
    """The exact fractions that sizes of parts are, or None where they are counts of images.

    Numbers that sum to 100 are percentages and those that sum to 1 fractions, with 0.1 meant as one tenth. All others
    are counts, so that a hundred images altogether, or one, cannot be asked for as counts.

    Args:
        sizes: of training and validation, or of training, validation and test. A part of size 0 is left out.

    Raises:
        SalpipeError: they are neither.

    >>> fractions((72, 18, 10)), fractions((8828, 2057, 1143))
    ((Fraction(18, 25), Fraction(9, 50), Fraction(1, 10)), None)
    """
    if len(sizes) not in (2, 3):
        raise OptionError(
            f"--split {format_split(sizes)}: give two numbers, training/validation, or three, training/validation/test"
        )
    if not all(0 <= size <= MAX_IMAGES for size in sizes):  # a NaN fails this as well
        raise OptionError(f"--split {format_split(sizes)}: each number must lie between 0 and {MAX_IMAGES:,}")
    exact = [Fraction(str(size)) for size in sizes]
    total = sum(exact)
    if total in (1, 100):
        return tuple(size / total for size in exact)
    if total == 0 or any(size.denominator > 1 for size in exact):
        raise OptionError(
            f"--split {format_split(sizes)}: the numbers sum to {float(total):g}; fractions must sum to 100 or 1, "
            "counts be whole numbers"
        )
    return None
