"""Which images train, which validate and which are evaluated. In which order they come stands elsewhere."""

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

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Split:
    """The images of one training run, as positions in the data set.

    Attributes:
        train: (n,) int64, ascending.
        validation: (m,) int64, ascending; no position is in both.
        pool: how many images `train` was drawn from.
    """

    train: Positions
    validation: Positions
    pool: int


@dataclass(frozen=True)
class _Dealing:
    """What folds keep together, and how: see `choose_split`."""

    groups: Positions | None
    balanced: bool
    remedy: str


def choose_split(
    labels: Labels,
    splits: npt.NDArray[np.int8],
    classes: Sequence[str],
    *,
    groups: Positions | None = None,
    balanced: bool = False,
    remedy: str = "",
    folds: int | None = None,
    fold: int | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    inner: bool = False,
    seed: int = 0,
) -> Split:
    """Choose the images that train and those that validate.

    Without `folds` the splits stored in the shards hold, and images without one stay out. With `folds` all images
    but those of the test split are dealt into that many stratified folds, of which one validates; duplicates of one
    another lie in one fold. Images without a label are in neither part.

    `per_class` and `limit` make training data scarce and leave the validation images alone. Both take the first of
    one seeded order in which an image's place depends on nothing but seed, fold and its position, so that the draw
    for K is contained in the draw for K + 1, and all arms of a comparison see the same images. `limit` gives each class
    one image and shares the rest in proportion to the class sizes; it comes after `per_class`.

    Args:
        labels: (N,) int64, -1 where unlabeled.
        splits: (N,) int8, 0 train, 1 validation, 2 test, -1 none.
        classes: names in label order.
        groups: (N,) int64, equal for images that folds keep together; None where there are none.
        balanced: whether groups may be of any size and of several classes, as persons or scenes are: folds then have
            the same number of images of each class as nearly as groups allow. Otherwise they have the same number of
            groups, as suits duplicates.
        remedy: what else can be done where groups leave too few images, added to the error.
        folds: how many folds to deal, >= 2.
        fold: which of them validates, 1 to `folds`.
        per_class: at most so many training images of each class.
        limit: at most so many training images.
        inner: train on four fifths of the training images and validate on the rest; see `inner_split`.
        seed: of the folds and the draws, 0 to 2**32 - 1.

    Raises:
        SalpipeError: the options contradict each other, or a part or a class of the training part would be empty.
    """
    _check_options(per_class, limit, seed)
    dealing = _Dealing(groups, balanced, remedy)
    train, validation = _parts(labels, splits, classes, dealing, folds, fold, seed)
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
        train, validation = inner_split(train, labels, classes, groups, run_seed(seed, fold))
    return Split(train, validation, pool)


def inner_split(
    rows: Positions, labels: Labels, classes: Sequence[str], groups: Positions | None, seed: int
) -> tuple[Positions, Positions]:
    """Divide training images into four fifths to train on and one fifth, of each class, to validate.

    Options can be chosen by the latter without the validation images of the fold. Groups stay together; a group counts
    for the class of its first image.

    Args:
        rows: (n,) int64, the training images, ascending.
        labels: (N,) int64, of all images.
        classes: names in label order.
        groups: (N,) int64, equal for images that stay together; None where there are none.
        seed: of the division.

    Returns:
        Positions that train and that validate, int64, ascending; together they are `rows`.

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
            "add some, or give one --lr"
        )
    fifth = np.maximum(1, (counts + 2) // 5)
    validates = np.isin(leader, first[_rank_in_class(own, order) < fifth[own]])
    if (lost := np.setdiff1d(labels[rows], labels[rows[~validates]])).size:
        raise SalpipeError(
            f"class {classes[lost[0]]!r} has no image to train on in an inner split, since groups are not divided; add "
            "images, or give one --lr"
        )
    return rows[~validates], rows[validates]


def evaluation_rows(
    labels: Labels,
    splits: npt.NDArray[np.int8],
    name: str,
    *,
    classes: Sequence[str],
    groups: Positions | None = None,
    balanced: bool = False,
    remedy: str = "",
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> Positions:
    """The labeled images of one part of the data set, for evaluation.

    Args:
        labels: (N,) int64, -1 where unlabeled.
        splits: (N,) int8, 0 train, 1 validation, 2 test, -1 none.
        name: `train` and `validation` as `choose_split` makes them from the same options (never reduced), `test` for
            the shards' test split, or `all`.
        classes: names in label order.
        groups: as in training; so are `balanced` and `remedy`.
        balanced: as in training.
        remedy: as in training.
        folds: as in training; `None` for the shards' own splits.
        fold: as in training.
        seed: as in training.

    Returns:
        (n,) int64, ascending, never empty.

    Raises:
        SalpipeError: no such part, or it holds no labeled image.
    """
    if name not in PARTS:
        raise SalpipeError(f"--split {name}: unknown; choose one of {', '.join(PARTS)}")
    labeled = _labeled(labels, splits, classes)
    if name in ("train", "validation"):
        _check_options(None, None, seed)
        dealing = _Dealing(groups, balanced, remedy)
        train, validation = _parts(labels, splits, classes, dealing, folds, fold, seed)
        rows = train if name == "train" else validation
    else:
        # shards of test images alone have too few for the folds of training, and need none
        rows = labeled if name == "all" else labeled[splits[labeled] == Part.TEST]
    if not len(rows):
        stored = np.bincount(splits[labeled] + 1, minlength=4)
        found = ", ".join(f"{count} {part}" for part, count in zip(_STORED, stored, strict=True) if count)
        raise SalpipeError(
            f"--split {name}: the shards have no labeled image there (they have {found}); choose another or 'all'"
        )
    return rows


def _labeled(labels: Labels, splits: npt.NDArray[np.int8], classes: Sequence[str]) -> Positions:
    """Positions of the labeled images, of which there is one at least."""
    if labels.ndim != 1 or labels.shape != splits.shape:
        raise ValueError(f"labels {labels.shape} and splits {splits.shape}: wanted (N,) twice")
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
    dealing: _Dealing,
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
    if folds < 2:
        raise OptionError(f"--folds {folds}: there must be at least 2, one to train on and one to validate")
    if fold is None:
        raise OptionError(f"--folds {folds} needs the fold that validates; add --fold 1 (to {folds})")
    if not 1 <= fold <= folds:
        raise OptionError(f"--fold {fold}: there are {folds} folds; use 1 to {folds}")
    pool = labeled[splits[labeled] != Part.TEST]
    leader = np.arange(len(pool)) if dealing.groups is None else leaders(dealing.groups[pool])
    if dealing.balanced and _are_uneven(leader, labels[pool]):
        validates = _balanced_fold(leader, labels[pool], classes, folds, fold, seed, dealing.remedy)
        return pool[~validates], pool[validates]
    # the first of each group is dealt, and the others follow it
    dealt = np.unique(leader)
    different = len(dealt) < len(pool)
    noun = "image" if not different else "group" if dealing.balanced else "different image"
    _check_folds(labels[pool[dealt]], classes, folds, noun, dealing.remedy if different else "")
    dealer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    _, validating = list(dealer.split(dealt, labels[pool[dealt]]))[fold - 1]
    validates = np.isin(leader, dealt[validating])
    return pool[~validates], pool[validates]


def _are_uneven(leader: Positions, labels: Labels) -> bool:
    """Whether groups differ in size or hold images of several classes."""
    _, sizes = np.unique(leader, return_counts=True)
    return bool((sizes != sizes[0]).any() or (labels != labels[leader]).any())


def _balanced_fold(
    leader: Positions, labels: Labels, classes: Sequence[str], folds: int, fold: int, seed: int, remedy: str
) -> npt.NDArray[np.bool_]:
    """Which images of a pool validate, (n,) bool, where groups are uneven.

    Groups are dealt as by sklearn's StratifiedGroupKFold: those with the most uneven classes first, each to the fold
    that leaves the classes' shares in all folds most alike. Equal groups come in an order that the seed decides.
    """
    dealt, group = np.unique(leader, return_inverse=True)
    members = np.unique(np.stack([labels, group], axis=1), axis=0)[:, 0]
    _check_folds(members, classes, folds, "group", remedy)
    # by an order of our own: shuffles of NumPy, and how sklearn applies them, may change
    order = _seeded_order(len(dealt), seed)
    parts = list(StratifiedGroupKFold(folds).split(labels, labels, order[group]))
    training, validating = parts[fold - 1]
    lacking = np.setdiff1d(labels, labels[training])
    if lacking.size or not len(validating):
        lack = f"class {classes[lacking[0]]!r} has no image to train on" if lacking.size else "no image validates"
        raise SalpipeError(f"fold {fold} of {folds}: {lack}, since groups are not divided; use fewer --folds{remedy}")
    validates = np.zeros(len(leader), np.bool_)
    validates[validating] = True
    return validates


def _check_options(per_class: int | None, limit: int | None, seed: int) -> None:
    if per_class is not None and per_class < 1:
        raise OptionError(f"--per-class {per_class}: must be at least 1")
    if limit is not None and limit < 1:
        raise OptionError(f"--limit {limit}: must be at least 1")
    if not 0 <= seed <= _MAX_SEED:
        raise OptionError(f"--seed {seed}: must be 0 to {_MAX_SEED}")


def _check_folds(labels: Labels, classes: Sequence[str], folds: int, noun: str, otherwise: str = "") -> None:
    """Refuse what StratifiedKFold would only warn of: a class that cannot be in every fold.

    Args:
        labels: of what is dealt: images, the first image of each group, or each group once per class.
        classes: their names.
        folds: how many.
        noun: what is dealt.
        otherwise: what else can be done, added to the error.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise SalpipeError(_without_training(classes, empty) + otherwise)
    rarest = int(counts.argmin())
    if (count := int(counts[rarest])) < folds:
        remedy = f"use --folds {count} or fewer" if count > 1 else f"give it more {noun}s or leave the class out"
        few = f"{count} {noun}{'s'[: count > 1]}, too few for {folds} folds"
        raise SalpipeError(f"class {classes[rarest]!r} has {few}; {remedy}{otherwise}")


def _without_training(classes: Sequence[str], empty: npt.NDArray[np.intp]) -> str:
    more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
    return (
        f"class {classes[empty[0]]!r}{more} has no image to train on; "
        "add some, or generate the shards again without the class"
    )


def _seeded_order(count: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation (count,) int64: the place of each position in the seeded order.

    It sorts the raw numbers of PCG64, whose stream NumPy promises never to change; its shuffles may.
    """
    numbers = np.random.PCG64(seed).random_raw(count)
    order = np.empty(count, np.int64)
    order[np.argsort(numbers, kind="stable")] = np.arange(count)
    return order


def _rank_in_class(labels: Labels, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each image how many of its class come before it in the seeded order."""
    by_class = np.lexsort((order, labels))
    first = np.searchsorted(labels[by_class], labels[by_class])
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - first
    return ranks


def _proportional_rank(labels: Labels, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A permutation of which every beginning holds the classes in proportion, after one image of each."""
    ranks = _rank_in_class(labels, order)
    share = np.where(ranks == 0, 0.0, (ranks + 0.5) / np.bincount(labels)[labels])
    places = np.empty(len(labels), np.int64)
    places[np.lexsort((order, share))] = np.arange(len(labels))
    return places
