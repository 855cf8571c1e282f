"""Splits: the images that a run trains on and validates, by stored splits or by folds, and those of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from saliency_pipeline.errors import IntegrityError, OptionError, SalpipeError
from saliency_pipeline.images.record import Split as Part
from saliency_pipeline.subsets.groups import leaders
from saliency_pipeline.training.config import PARTS
from saliency_pipeline.training.data.order import run_seed

Labels = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]

# -1 to 2, as the shards store them
_STORED = ("without a split", "train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The images of one training run, as positions in the data set.

    Attributes:
        train: (n,) int64, ascending.
        validation: (m,) int64, ascending; no position is in both.
        pool: number of images that `train` was sampled from.
    """

    train: Positions
    validation: Positions
    pool: int


@dataclass(frozen=True, eq=False)
class Together:
    """Images that folds keep together.

    Attributes:
        groups: (N,) int64, equal for images of a group; None without groups.
        balanced: True for groups of any size and of several classes, such as persons or scenes: folds then have the
            same number of images per class as nearly as groups allow. Otherwise folds have the same number of groups,
            as suits duplicates.
        remedy: another remedy for the error if groups leave too few images.
    """

    groups: Positions | None = None
    balanced: bool = False
    remedy: str = ""


def choose_split(
    labels: Labels,
    splits: npt.NDArray[np.int8],
    classes: Sequence[str],
    *,
    together: Together = Together(),
    folds: int | None = None,
    fold: int | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    inner: bool = False,
    seed: int = 0,
) -> Split:
    """Choose the training and the validation images.

    Without `folds` the splits stored in the shards apply, and images without one are left out. With `folds` all images
    but those of the test split are split into stratified folds, of which one validates; duplicates lie in one fold.
    Images without a label are in neither part.

    `per_class` and `limit` subsample the training images. Both take the first images of one seeded order in which the
    rank of an image depends on seed, fold and its position alone, so that the sample for K is contained in the sample
    for K + 1, and all arms of a comparison see the same images. `limit` gives each class one image and the rest in
    proportion to the class sizes; it is applied after `per_class`.

    Args:
        labels: (N,) int64, -1 where unlabeled.
        splits: (N,) int8, 0 train, 1 validation, 2 test, -1 none.
        classes: names in label order.
        together: images that folds keep together.
        folds: number of folds, >= 2; None for the stored splits.
        fold: the fold that validates, 1 to `folds`.
        per_class: maximum number of training images per class.
        limit: maximum number of training images.
        inner: train on four fifths of the training images and validate on the rest; see `inner_split`.
        seed: random seed of folds and subsampling, 0 to 2**32 - 1.

    Raises:
        SalpipeError: the options contradict each other, or a part or a class of the training part would be empty.
    """
    train, validation = _parts(labels, splits, classes, together, folds, fold, seed)
    for part, rows in (("training", train), ("validation", validation)):
        if not len(rows):
            raise SalpipeError(
                f"the shards have no labeled image in a {part} split; use --folds 5 --fold 1, or generate them again "
                "with --split 80/20"
            )
    counts = np.bincount(labels[train], minlength=len(classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise SalpipeError(_without_training(classes, empty))
    if len(classes) == 1:
        raise SalpipeError(f"all labeled images are of class {classes[0]!r}; training needs at least two classes")
    if limit is not None and limit < len(classes):
        raise SalpipeError(
            f"--limit {limit}: each of the {len(classes)} classes needs an image to train on; "
            f"use {len(classes)} or more"
        )
    order, pool = _seeded_order(len(labels), run_seed(seed, fold)), len(train)
    if per_class is not None:
        train = train[_rank_in_class(labels[train], order[train]) < per_class]
    if limit is not None:
        train = train[_proportional_rank(labels[train], order[train]) < limit]
    if inner:
        train, validation = inner_split(train, labels, classes, together.groups, run_seed(seed, fold))
    return Split(train, validation, pool)


def inner_split(
    rows: Positions, labels: Labels, classes: Sequence[str], groups: Positions | None, seed: int
) -> tuple[Positions, Positions]:
    """Split training images into four fifths to train on and one fifth, of each class, to validate.

    Options can be tuned on the latter without the validation images of the fold. Groups are not divided; a group counts
    for the class of its first image.

    Args:
        rows: (n,) int64, the training images, ascending.
        labels: (N,) int64, labels of all images.
        classes: names in label order.
        groups: (N,) int64, equal for images of a group; None without groups.
        seed: random seed.

    Returns:
        Training and validation positions, int64, ascending; together they are `rows`.

    Raises:
        SalpipeError: a class has a single image, or group, or is left without an image to train on.
    """
    leader = np.arange(len(rows)) if groups is None else leaders(groups[rows])
    first = np.unique(leader)
    own, order = labels[rows[first]], _seeded_order(len(first), seed)
    counts = np.bincount(own, minlength=len(classes))
    if (few := np.flatnonzero(counts < 2)).size:
        raise SalpipeError(
            f"class {classes[few[0]]!r} has fewer than two different training images, too few for an inner split; "
            "add some, or use a single --lr"
        )
    fifth = np.maximum(1, (counts + 2) // 5)
    validates = np.isin(leader, first[_rank_in_class(own, order) < fifth[own]])
    if (lost := np.setdiff1d(labels[rows], labels[rows[~validates]])).size:
        raise SalpipeError(
            f"class {classes[lost[0]]!r} has no image to train on in an inner split, since groups are not divided; add "
            "images, or use a single --lr"
        )
    return rows[~validates], rows[validates]


def evaluation_rows(
    labels: Labels,
    splits: npt.NDArray[np.int8],
    name: str,
    *,
    classes: Sequence[str],
    together: Together = Together(),
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> Positions:
    """The labeled images of one part of the data set, for evaluation; the other arguments are those of `choose_split`.

    The parts are `train` and `validation` as `choose_split` makes them (never subsampled), `test`, which is the stored
    test split, and `all`.

    Returns:
        (n,) int64, ascending, never empty.

    Raises:
        SalpipeError: an unknown part, or one without a labeled image.
    """
    if name not in PARTS:
        raise SalpipeError(f"--split {name}: unknown; choose one of {', '.join(PARTS)}")
    labeled = _labeled(labels, splits, classes)
    if name in ("train", "validation"):
        train, validation = _parts(labels, splits, classes, together, folds, fold, seed)
        rows = train if name == "train" else validation
    else:
        # shards of test images alone have too few for the folds of training, and need none
        rows = labeled if name == "all" else labeled[splits[labeled] == Part.TEST]
    if not len(rows):
        stored = np.bincount(splits[labeled] + 1, minlength=4)
        counts = ", ".join(f"{count} {part}" for part, count in zip(_STORED, stored, strict=True) if count)
        raise SalpipeError(
            f"--split {name}: the shards have no labeled image there (they have {counts}); choose another or 'all'"
        )
    return rows


def _labeled(labels: Labels, splits: npt.NDArray[np.int8], classes: Sequence[str]) -> Positions:
    """Positions of the labeled images, at least one."""
    if labels.ndim != 1 or labels.shape != splits.shape:
        raise ValueError(f"labels {labels.shape} and splits {splits.shape}: expected (N,) twice")
    if len(wrong := np.flatnonzero((labels < -1) | (labels >= len(classes)))):
        raise IntegrityError(
            f"image {wrong[0]} has label {labels[wrong[0]]}, but there are {len(classes)} classes; run 'salpipe verify'"
        )
    labeled: Positions = np.flatnonzero(labels >= 0)
    if not len(labeled):
        raise SalpipeError("no image has a label; generate the shards from a folder with one sub-folder per class")
    return labeled


def _parts(
    labels: Labels,
    splits: npt.NDArray[np.int8],
    classes: Sequence[str],
    together: Together,
    folds: int | None,
    fold: int | None,
    seed: int,
) -> tuple[Positions, Positions]:
    """Training and validation positions, ascending, before any check that they suffice."""
    labeled = _labeled(labels, splits, classes)
    if folds is None:
        if fold is not None:
            raise OptionError(f"--fold {fold} needs the number of folds; add --folds 5")
        stored = splits[labeled]
        return labeled[stored == Part.TRAIN], labeled[stored == Part.VALIDATION]
    if fold is None:
        raise OptionError(f"--folds {folds} needs the fold that validates; add --fold 1 (to {folds})")
    if not 1 <= fold <= folds:
        raise OptionError(f"--fold {fold}: there are {folds} folds; use 1 to {folds}")
    pool = labeled[splits[labeled] != Part.TEST]
    leader = np.arange(len(pool)) if together.groups is None else leaders(together.groups[pool])
    if together.balanced and _are_uneven(leader, labels[pool]):
        validates = _balanced_fold(leader, labels[pool], classes, folds, fold, seed, together.remedy)
        return pool[~validates], pool[validates]
    # the first image of each group is split, and the others follow it
    first = np.unique(leader)
    grouped = len(first) < len(pool)
    noun = "image" if not grouped else "group" if together.balanced else "different image"
    _check_folds(labels[pool[first]], classes, folds, noun, together.remedy if grouped else "")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    _, validating = list(splitter.split(first, labels[pool[first]]))[fold - 1]
    validates = np.isin(leader, first[validating])
    return pool[~validates], pool[validates]


def _are_uneven(leader: Positions, labels: Labels) -> bool:
    """Return whether groups differ in size or hold images of several classes."""
    _, sizes = np.unique(leader, return_counts=True)
    return bool((sizes != sizes[0]).any() or (labels != labels[leader]).any())


def _balanced_fold(
    leader: Positions, labels: Labels, classes: Sequence[str], folds: int, fold: int, seed: int, remedy: str
) -> npt.NDArray[np.bool_]:
    """Mask of the images of a pool that validate, (n,) bool, for uneven groups.

    Groups are assigned by scikit-learn's StratifiedGroupKFold: those with the most uneven classes first, each to the
    fold that keeps the class shares of all folds most alike. The seed decides the order of equal groups.
    """
    first, group = np.unique(leader, return_inverse=True)
    members = np.unique(np.stack([labels, group], axis=1), axis=0)[:, 0]
    _check_folds(members, classes, folds, "group", remedy)
    # in our own order: the shuffles of NumPy and scikit-learn may change
    order = _seeded_order(len(first), seed)
    parts = list(StratifiedGroupKFold(folds).split(labels, labels, order[group]))
    training, validating = parts[fold - 1]
    lacking = np.setdiff1d(labels, labels[training])
    if lacking.size or not len(validating):
        lack = f"class {classes[lacking[0]]!r} has no image to train on" if lacking.size else "no image validates"
        raise SalpipeError(f"fold {fold} of {folds}: {lack}, since groups are not divided; use fewer --folds{remedy}")
    validates = np.zeros(len(leader), np.bool_)
    validates[validating] = True
    return validates


def _check_folds(labels: Labels, classes: Sequence[str], folds: int, noun: str, otherwise: str = "") -> None:
    """Raises SalpipeError for a class that cannot be in every fold, of which StratifiedKFold would only warn.

    `labels` are those of the units that are split: images, the first image of each group, or each group per class.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise SalpipeError(_without_training(classes, empty) + otherwise)
    rarest = int(counts.argmin())
    if (count := int(counts[rarest])) < folds:
        remedy = f"use --folds {count} or fewer" if count > 1 else f"add {noun}s or leave the class out"
        few = f"{count} {noun}{'s'[: count > 1]}, too few for {folds} folds"
        raise SalpipeError(f"class {classes[rarest]!r} has {few}; {remedy}{otherwise}")


def _without_training(classes: Sequence[str], empty: npt.NDArray[np.intp]) -> str:
    more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
    return (
        f"class {classes[empty[0]]!r}{more} has no image to train on; "
        "add some, or generate the shards again without the class"
    )


def _seeded_order(count: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation (count,) int64: the rank of each position in the seeded order.

    It sorts the raw numbers of PCG64, whose stream NumPy promises never to change, unlike its shuffles.
    """
    numbers = np.random.PCG64(seed).random_raw(count)
    order = np.empty(count, np.int64)
    order[np.argsort(numbers, kind="stable")] = np.arange(count)
    return order


def _rank_in_class(labels: Labels, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of images of the same class that precede each image in the seeded order."""
    by_class = np.lexsort((order, labels))
    first = np.searchsorted(labels[by_class], labels[by_class])
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - first
    return ranks


def _proportional_rank(labels: Labels, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A permutation whose every prefix holds the classes in proportion, after one image of each."""
    ranks = _rank_in_class(labels, order)
    share = np.where(ranks == 0, 0.0, (ranks + 0.5) / np.bincount(labels)[labels])
    places = np.empty(len(labels), np.int64)
    places[np.lexsort((order, share))] = np.arange(len(labels))
    return places
