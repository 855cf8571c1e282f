"""Checks that finished runs form pairs, two runs that differ only in their arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from saliency_pipeline.comparison.arms import Arm, first_reference
from saliency_pipeline.comparison.runs import FirstWeights, Run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.weights import RGB_PART
from saliency_pipeline.training.config import option
from saliency_pipeline.training.runlog import VALIDATION

SPLIT = ("folds", "group_by", "search_duplicates")
"""Options that decide which images are held out, beside seed and fold; without folds the shards decide."""
COMPUTED = ("precision", "device")
"""Options that decide how a run is computed; they are the same in a pair, so that no arm gets another rounding."""

_MOST_NAMES = 3


def check_runs(runs: Sequence[Run], arms: Sequence[Arm]) -> None:
    """Check that all runs have the same shards and folds, and that runs of a pair differ only in their arm.

    Runs of different arms with the same seed and fold are a pair. They must have the same validation images and labels,
    the same images to train on, the same precision and device, and the same initial value of every tensor that both
    networks initialized at random or loaded from the same origin.

    Raises:
        SalpipeError: naming the two runs and all their differences, or the one run that is not comparable.
    """
    for run in runs:
        _check_alone(run)
    for run in runs[1:]:
        if differing := shards_and_folds(runs[0], run):
            raise _refused(runs[0], run, differing)
    by_pair: dict[object, list[Run]] = {}
    for run in runs:
        by_pair.setdefault(run.pair, []).append(run)
    for together in by_pair.values():
        for first, second in combinations(together, 2):
            if differing := [
                *images(first, second),
                *_options(first, second, COMPUTED),
                *weights(first.first, second.first),
            ]:
                raise _refused(first, second, differing)
    reference = first_reference(arms)
    for arm in arms:
        _check_paired(runs, arm.name, arm.reference or reference)


def _check_paired(runs: Sequence[Run], arm: str, reference: str) -> None:
    """Raise SalpipeError if no run of an arm is a pair with one of its reference."""
    own, others = ([run for run in runs if run.arm == name] for name in (arm, reference))
    if not {run.pair for run in own} & {run.pair for run in others}:
        raise SalpipeError(
            f"{others[0].folder} and {own[0].folder}: not a pair, they differ in {_seed_and_fold(others[0])} and "
            f"{_seed_and_fold(own[0])}, and no other runs of {reference} and {arm} share both; train {arm} with a seed "
            f"and fold of {reference}"
        )


def shards_and_folds(first: Run, second: Run) -> list[str]:
    """Differences of two runs in shards and options of the split."""
    differing = (
        [] if first.shards_sha256 == second.shards_sha256 else [f"shards {_shards(first)} and {_shards(second)}"]
    )
    # without folds these options decide nothing
    names = SPLIT if first.config.folds or second.config.folds else ()
    return differing + _options(first, second, names)


def images(first: Run, second: Run) -> list[str]:
    """Differences of two runs in validation images, labels and number of training images."""
    assert first.validation is not None
    assert second.validation is not None
    labels, others = (dict(zip(own.keys, own.labels, strict=True)) for own in (first.validation, second.validation))
    shared = labels.keys() & others.keys()
    differing = []
    if not len(shared) == len(labels) == len(others):
        differing.append(f"validation images ({len(labels)} and {len(others)}, {len(shared)} shared)")
    if other := sum(labels[key] != others[key] for key in shared):
        differing.append(f"labels of {other} validation images")
    if first.images["pool"] != second.images["pool"]:
        differing.append(f"images to train on ({first.images['pool']} and {second.images['pool']})")
    return differing


def weights(first: FirstWeights, second: FirstWeights) -> list[str]:
    """Differences in first weights that two networks initialized at random or loaded from one origin.

    Tensors of other shapes are other tensors, except that a convolution of RGB and a map shares its RGB part with a
    convolution of RGB.
    """
    random = [name for name in sorted(first.random & second.random) if _differs(first, second, name)]
    loaded = (first.loaded & second.loaded) if first.origin == second.origin else frozenset()
    read = [name for name in sorted(loaded) if name not in random and _differs(first, second, name, rgb=True)]
    differing = []
    if random:
        differing.append(f"random first weights ({_names(random)})")
    if read:
        differing.append(f"first weights from {first.origin} ({_names(read)})")
    return differing


def _differs(first: FirstWeights, second: FirstWeights, name: str, *, rgb: bool = False) -> bool:
    """True if a tensor has the same shape and other values."""
    a, b = first.tensors[name], second.tensors[name]
    if rgb and _shape(a) != _shape(b):
        a, b = first.tensors.get(name + RGB_PART, a), second.tensors.get(name + RGB_PART, b)
    return a != b and _shape(a) == _shape(b)


def _shape(digest: str) -> str:
    return digest.rpartition(" ")[0]


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more tensors" if rest > 0 else "")


def _options(first: Run, second: Run, names: Sequence[str]) -> list[str]:
    both = [(name, getattr(first.config, name), getattr(second.config, name)) for name in names]
    return [f"{option(name)} {_value(a)} and {_value(b)}" for name, a, b in both if a != b]


def _value(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _shards(run: Run) -> str:
    return f"{run.shards} ({run.shards_sha256[:12]})"


def _seed_and_fold(run: Run) -> str:
    seed, fold = run.pair
    return f"seed {seed}" + (f" fold {fold}" if fold else "")


def _check_alone(run: Run) -> None:
    """Raise SalpipeError if a run is not comparable with any other."""
    if run.config.inner_split:
        raise SalpipeError(
            f"{run.folder}: trained with --inner-split, which is for choosing options and does not evaluate "
            "on held-out images; give runs that were trained without it"
        )
    if run.validation is None:
        raise SalpipeError(
            f"{run.folder}: has no {VALIDATION}, so that its validation images cannot be checked; train it again in "
            "another folder"
        )
    if not run.first.tensors:
        raise SalpipeError(
            f"{run.folder}: a run of an earlier version, which does not record its first weights; give the same "
            "'salpipe train' again, with --no-search-duplicates, which adds them without training"
        )


def _refused(first: Run, second: Run, differing: Sequence[str]) -> SalpipeError:
    return SalpipeError(
        f"{first.folder} and {second.folder}: not comparable, they differ in {', '.join(differing)}; train one of them "
        "again like the other, or use 'salpipe compare SHARDS', which trains pairs"
    )
