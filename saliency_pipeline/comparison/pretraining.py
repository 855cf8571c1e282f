"""Pretraining: source pairs, on which arms with `init = full` and their baselines are trained before the comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.arms import CANDIDATE, CONTROL, DESCRIPTIVE, REFERENCE, Arm, Question, first_reference
from saliency_pipeline.comparison.config import ALL, ComparisonConfig
from saliency_pipeline.comparison.use_arms import MAP_OPTIONS, is_plain
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Split
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig

PRETRAINED = "pretrained"


def with_pretrained(arms: Sequence[Arm], config: ComparisonConfig) -> tuple[Arm, ...]:
    """The arms, those that start from trained weights with the folder of their pretraining, one arm per size.

    Such a candidate is compared with a baseline that was pretrained on the same source images, which is added where
    there is none.

    Raises:
        SalpipeError: an arm starts from trained weights and there are none, or a pretraining that no arm starts from.
    """
    expanded: list[Arm] = []
    several = len(config.pretrain_size) > 1
    for arm in arms:
        start = arm.options.get("start")
        if arm.options.get("init") != "full":
            expanded.append(arm)
        elif start:
            # absolute, so that a user's folder called pretrained is not taken for a pretraining of its own
            own = os.path.abspath(start) if isinstance(start, str) else start
            expanded.append(replace(arm, options={**arm.options, "start": own}))
        elif config.pretrain is None:
            kind, other = ("baseline", "") if is_plain(arm.options) else ("two-branch", ", or one with --from")
            raise SalpipeError(
                f"arm {arm.name} starts from a trained {kind} network; give source pairs with --pretrain{other}"
            )
        else:
            expanded += [_sized(arm, size, several) for size in config.pretrain_size]
    if config.pretrain is not None and not any(pretrained(arm) for arm in expanded):
        raise SalpipeError("--pretrain: no arm starts from it; add --arm full")
    return _with_baselines(expanded, several)


def pretrained(arm: Arm) -> tuple[str, str] | None:
    """Size and folder of the arm's own pretraining, below the comparison's folder; None where it has none."""
    start = str(arm.options.get("start", ""))
    return (start.split("/")[1], start) if start.startswith(f"{PRETRAINED}/") else None


def started(arm: Arm, folder: Path, seed: int) -> Arm:
    """The arm, starting from its own pretraining with a seed if it has any."""
    own = pretrained(arm)
    if own is None:
        return arm
    return replace(arm, options={**arm.options, "start": str((folder / own[1] / seed_folder(seed)).resolve())})


def seed_folder(seed: int) -> str:
    """Name of the folder of a repeat.

    >>> seed_folder(3)
    'seed-3'
    """
    return f"seed-{seed}"


def pretraining_config(arm: Arm, shared: TrainConfig, shards: str, size: str, seed: int) -> TrainConfig:
    """Options of an arm's pretraining: its own, but for the first weights, the images and the seed."""
    options = {name: value for name, value in arm.options.items() if name not in ("init", "start")}
    own: dict[str, Any] = {"limit": None if size == ALL else int(size), "seed": seed, "group_by": None}
    return replace(shared, **options, **own, **_source_split(shards))


def unequal_starts(arms: Sequence[Arm]) -> list[str]:
    """A warning for every candidate that has seen source images which its reference has not."""
    by_name = {arm.name: arm for arm in arms}
    first = next((arm for arm in arms if arm.kind == REFERENCE), None)
    warnings = []
    for arm in arms:
        reference = by_name.get(arm.reference, first)
        if arm.kind != CANDIDATE or arm.options.get("init") != "full" or reference is None:
            continue
        if reference.options.get("init") != "full":
            warnings.append(
                f"{arm.name} has seen source images which {reference.name} has not, so that their difference may be "
                "due to these images; use --pretrain SHARDS, which trains a baseline on the same images"
            )
    return warnings


def source_contrasts(arms: Sequence[Arm]) -> list[Question]:
    """What source images do, without a verdict: each pretrained arm but controls with the comparison's reference, and
    with the same arm pretrained on the size before its own.
    """
    first, made = first_reference(arms), list[Question]()
    smaller: dict[tuple[tuple[str, str], ...], str] = {}
    for arm in arms:
        if pretrained(arm) is None or arm.kind == CONTROL:
            continue
        if arm.name != first and not (arm.kind == CANDIDATE and arm.reference in ("", first)):
            made.append(Question(arm.name, first, DESCRIPTIVE))
        same = tuple(sorted((name, str(value)) for name, value in arm.options.items() if name != "start"))
        if same in smaller:
            made.append(Question(arm.name, smaller[same], DESCRIPTIVE))
        smaller[same] = arm.name
    return made


def _sized(arm: Arm, size: str, several: bool) -> Arm:
    name, of = arm.name, arm.of
    if several:
        # full-mismatched becomes full-1000-mismatched, the control of full-1000
        rest = name.removeprefix(f"{of}-") if of and name.startswith(f"{of}-") else ""
        name = f"{of}-{size}-{rest}" if rest else f"{name}-{size}"
        of = f"{of}-{size}" if of else ""
    return replace(arm, name=name, of=of, options={**arm.options, "start": f"{PRETRAINED}/{size}/{name}"})


def _with_baselines(arms: Sequence[Arm], several: bool) -> tuple[Arm, ...]:
    """The arms, every pretrained candidate with a baseline that was pretrained likewise as its reference."""
    completed = list(arms)
    for place, arm in enumerate(arms):
        own = pretrained(arm)
        if own is None or arm.kind != CANDIDATE or is_plain(arm.options):
            continue
        options = {n: v for n, v in arm.options.items() if n not in MAP_OPTIONS} | {"arch": "baseline"}
        baseline = next(
            (other for other in completed if is_plain(other.options) and _same_but_start(other, options, own[0])), None
        )
        if baseline is None:
            names = {other.name for other in completed}
            name = f"baseline-full-{own[0]}" if several else "baseline-full"
            if name in names:
                name = f"baseline-{arm.name}"
            baseline = Arm(name, {**options, "start": f"{PRETRAINED}/{own[0]}/{name}"}, REFERENCE)
            completed.append(baseline)
        completed[place] = replace(arm, reference=baseline.name)
    return tuple(completed)


def _same_but_start(arm: Arm, options: dict[str, Any], size: str) -> bool:
    own = pretrained(arm)
    return own is not None and own[0] == size and {**arm.options, "start": ""} == {**options, "start": ""}


def _source_split(shards: str) -> dict[str, Any]:
    """The source shards' own splits, or one fold of five where they have none."""
    splits = ShardFolder(shards).splits
    own = {Split.TRAIN, Split.VALIDATION} <= {int(split) for split in set(splits.tolist())}
    return {} if own else {"folds": 5, "fold": 1}
