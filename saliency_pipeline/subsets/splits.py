"""Splits: how many images of each class go into each part, and which. What is split is chosen in `select.py`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from saliency_pipeline.subsets.hash_sampling import Lots, ranks

Counts = npt.NDArray[np.int64]
Parts = npt.NDArray[np.int8]


def part_totals(images: int, shares: Sequence[Fraction]) -> list[int]:
    """How many of all images each part gets: largest remainders, of equal ones the earlier part first.

    >>> part_totals(11, [Fraction(18, 25), Fraction(9, 50), Fraction(1, 10)])
    [8, 2, 1]
    """
    totals = [int(images * share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda part: totals[part] - images * shares[part])
    for part in by_remainder[: images - sum(totals)]:
        totals[part] += 1
    return totals


def class_totals(weights: Counts, totals: Sequence[int], class_lots: Lots) -> Counts:
    """How many images of each class each part gets, in proportion to the classes' sizes.

    From the last part to the first, the part's images are shared among the classes in proportion to what they have
    left, by largest remainders; training takes the rest. So all parts have exactly their total; the last one is less
    than 1 off its exact proportion in every class, the others less than 2.

    Args:
        weights: (k,) int64 images of each class.
        totals: of each part; they sum to the images.
        class_lots: (k,) uint64: of classes with equal remainders the lowest gets the image.

    Returns:
        (k, parts) int64.

    >>> class_totals(np.array([10, 10, 10]), [21, 6, 3], np.array([5, 2, 9], np.uint64)).tolist()
    [[7, 2, 1], [7, 2, 1], [7, 2, 1]]
    """
    left = weights.astype(np.int64)
    found = np.zeros((len(weights), len(totals)), np.int64)
    for part in range(len(totals) - 1, 0, -1):
        shared, remainders = np.divmod(left * totals[part], max(int(left.sum()), 1))
        more = totals[part] - int(shared.sum())
        shared[np.lexsort((class_lots, -remainders))[:more]] += 1
        found[:, part] = shared
        left = left - shared
    found[:, 0] = left
    return found


def deal(strata: Counts, sizes: Counts, lots: Lots, totals: Sequence[int], class_lots: Lots) -> Parts:
    """Deals units, each an image or some that are duplicates of one another, to parts, class by class.

    Single images go by the order of their lots: the first of every class to the last part, and so on to training.
    Before them the units of several images are dealt, the larger first, each to a part drawn by its lot with the odds
    of what the parts still lack, or, where that part lacks less than the unit, to the one that lacks most. So every
    part has exactly the images of a class that `class_totals` says where the class has single images enough to fill
    up: as many as there are parts, times one less than its largest unit has. Of other classes it has too many by less
    than that unit's size. A unit of images of several classes counts as a whole for the class `strata` gives it.

    Args:
        strata: (n,) int64 class of each unit, 0 to k - 1.
        sizes: (n,) int64 images in each unit, at least 1.
        lots: (n,) uint64.
        totals: images of each part; they sum to the images.
        class_lots: (k,) uint64.

    Returns:
        (n,) int8: the part of each unit, 0 for training.
    """
    weights = np.zeros(len(class_lots), np.int64)
    np.add.at(weights, strata, sizes)
    lacking = class_totals(weights, totals, class_lots)
    parts = np.zeros(len(strata), np.int8)

    several = np.flatnonzero(sizes > 1)
    for unit in several[np.lexsort((lots[several], -sizes[several]))].tolist():
        lacks = lacking[strata[unit]]
        parts[unit] = part = _part_for(lacks.tolist(), int(sizes[unit]), int(lots[unit]))
        lacks[part] -= sizes[unit]

    single = np.flatnonzero(sizes == 1)
    rank = ranks(strata[single], lots[single])
    until = np.zeros(len(class_lots), np.int64)
    for part in range(len(totals) - 1, 0, -1):
        since, until = until, until + np.maximum(lacking[:, part], 0)
        parts[single[(since[strata[single]] <= rank) & (rank < until[strata[single]])]] = part
    return parts


def deal_stable(lots: Lots, shares: Sequence[Fraction]) -> Parts:
    """Deals each unit by its own lot alone: a part is an interval of lots, as wide as its fraction.

    Whatever else there is, a unit stays where it is; in return the fractions hold on average only. A part keeps its
    images also when the later parts are divided otherwise.

    Args:
        lots: (n,) uint64.
        shares: fraction of each part; they sum to 1.

    Returns:
        (n,) int8: the part of each unit, 0 for training.

    >>> deal_stable(np.array([0, 2**62, 2**63, 2**64 - 1], np.uint64), [Fraction(1, 2), Fraction(1, 2)]).tolist()
    [0, 0, 1, 1]
    """
    # of 63 bits, so that the end of the last interval can be written as well
    ends = [-int(-(sum(shares[: part + 1]) * 2**63) // 1) for part in range(len(shares) - 1)]
    return np.searchsorted(np.array(ends, np.uint64), lots >> np.uint64(1), side="right").astype(np.int8)


def _part_for(lacks: list[int], size: int, lot: int) -> int:
    """The part for a unit of several images, given how many images of its class each part lacks."""
    place = lot * sum(max(lack, 0) for lack in lacks) >> 64
    for part, lack in enumerate(lacks):
        if place < max(lack, 0):
            return part if lack >= size else lacks.index(max(lacks))
        place -= max(lack, 0)
    raise AssertionError("parts together lack the images that are left")
