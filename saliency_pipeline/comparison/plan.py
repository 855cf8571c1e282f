"""What a comparison consists of: arms, data budgets, folds and repeats, and so the training runs it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.images.record import Split
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig, option
from saliency_pipeline.training.parts import labels_and_splits
from saliency_pipeline.training.runlog import read_json

PLAN = "plan.json"
RUNS, PRETRAINED = "runs", "pretrained"
ALL = "all"

_NOT_SHARED = ("arch", "init", "start", "fusion", "maps", "folds", "fold", "per_class", "seed")


@dataclass(frozen=True)
class Pretraining:
    """Where the arm `full` begins.

    Attributes:
        shards: source pairs, on which a two-branch network is trained first.
        sizes: numbers of source images, `all` for all of them; each is an arm of its own.
    """

    shards: str
    sizes: tuple[str, ...] = (ALL,)


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes:
        folder: of the run, below the comparison's.
        shards: what it is trained on.
        config: its options.
        arm: whose run it is; empty for a pretraining.
        setting: under which data budget.
        test: whether the held-out test images are to be answered when it is trained.
    """

    folder: str
    shards: str
    config: TrainConfig
    arm: str
    setting: str
    test: bool


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        shards: the pairs.
        hash: of the shards' plan.
        arms: what is compared.
        shared: options of every run.
        folds: stratified folds; 0 for the shards' own splits.
        repeats: how often the folds are dealt, each time with the next seed.
        per_class: data budgets, training images a class; `all` for all of them.
        pretraining: where `full` begins, if it is among the arms.
        threads: of every run, which on a CPU decide its last bits.
        test: whether the shards hold a test split.
    """

    shards: str
    hash: str
    arms: tuple[Arm, ...]
    shared: TrainConfig
    folds: int
    repeats: int
    per_class: tuple[str, ...]
    pretraining: Pretraining | None
    threads: int
    test: bool

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the data budgets."""
        return tuple(setting_name(text) for text in self.per_class)

    def pretrainings(self) -> list[Task]:
        """The runs that arms begin with."""
        if self.pretraining is None:
            return []
        # groups are named by keys of the target's images
        shared = replace(self.shared, arch="modulated", group_by=None)
        config = _anchored(replace(shared, **_source_split(self.pretraining.shards)))
        return [
            Task(
                f"{PRETRAINED}/{size}",
                self.pretraining.shards,
                replace(config, limit=None if size == ALL else int(size)),
                "",
                "",
                False,
            )
            for size in self.pretraining.sizes
        ]

    def tasks(self, folder: Path) -> list[Task]:
        """The runs of all arms, pair by pair: what is finished first can be compared first.

        Args:
            folder: of the comparison.
        """
        found = []
        for repeat in range(self.repeats):
            for fold in range(1, self.folds + 1) if self.folds else (None,):
                for per_class, setting in zip(self.per_class, self.settings, strict=True):
                    for arm in self.arms:
                        shared = replace(
                            self.shared,
                            folds=self.folds or None,
                            fold=fold,
                            seed=self.shared.seed + repeat,
                            per_class=None if per_class == ALL else int(per_class),
                        )
                        config = _anchored(started(arm, folder).config(shared))
                        pair = f"seed-{shared.seed}" + (f"-fold-{fold}" if fold else "")
                        place = f"{RUNS}/{setting.replace(' ', '-')}/{arm.name}/{pair}"
                        found.append(Task(place, self.shards, config, arm.name, setting, self.test))
        return found

    def described(self) -> dict[str, Any]:
        """The plan as `plan.json` keeps it."""
        told = asdict(self) | {"shared": {n: v for n, v in asdict(self.shared).items() if n not in _NOT_SHARED}}
        return json.loads(json.dumps(told | {"seed": self.shared.seed}))  # type: ignore[no-any-return]


def make_plan(
    pairs: ShardFolder,
    arms: Sequence[Arm],
    shared: TrainConfig,
    *,
    folds: int,
    repeats: int,
    per_class: Sequence[str] = (ALL,),
    pretraining: Pretraining | None = None,
    threads: int,
) -> Plan:
    """A comparison, looked over.

    Raises:
        SalpipeError: a number or an arm that cannot be.
    """
    if folds < 0 or folds == 1:
        raise OptionError(f"--folds {folds}: use 2 or more, or 0 for the shards' own splits")
    if repeats < 1:
        raise OptionError(f"--repeats {repeats}: use 1 or more")
    for name, values in (("per-class", per_class), ("pretrain-size", pretraining.sizes if pretraining else ())):
        for text in values:
            if text != ALL and not (text.isascii() and text.isdigit() and int(text) > 0):
                raise OptionError(f"--{name} {text}: use numbers of images, or 'all', with commas between them")
        if len(set(values)) < len(values):
            raise OptionError(f"--{name} {','.join(values)}: names a number twice")
    _, splits = labels_and_splits(pairs)
    return Plan(
        str(pairs.path.resolve()),
        pairs.header.plan,
        _with_pretrained(arms, pretraining),
        shared,
        folds,
        repeats,
        tuple(per_class),
        pretraining,
        threads,
        bool((splits == Split.TEST).any()),
    )


def store(plan: Plan, folder: Path) -> None:
    """Keep the plan; arms, budgets, folds' repeats may be added to what is there, nothing else may change.

    Raises:
        PlanMismatchError: the folder holds another comparison; naming what differs.
    """
    path, new = folder / PLAN, plan.described()
    if path.exists():
        try:
            differing = _differences(read_json(path), new)
        except (KeyError, TypeError, AttributeError) as error:
            raise SalpipeError(f"{path}: damaged; choose another output folder") from error
        if differing:
            raise PlanMismatchError(
                f"{folder} holds another comparison ({'; '.join(differing)}); choose another output folder"
            )
    write_atomically(path, json.dumps(new, indent=2) + "\n")


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a stored plan has otherwise, but for arms that are new."""
    differing = [
        f"{name} {old.get(name)} -> {new[name]}"
        for name in ("hash", "folds", "pretraining", "threads", "seed")
        if old.get(name) != new[name]
    ]
    before = old.get("shared", {})
    differing += [
        f"{option(name)} {before.get(name)} -> {value}"
        for name, value in new["shared"].items()
        if before.get(name) != value
    ]
    known = {arm["name"]: arm for arm in old.get("arms", ())}
    return differing + [
        f"arm {arm['name']}" for arm in new["arms"] if known.get(arm["name"], arm)["options"] != arm["options"]
    ]


def chosen_before(folder: Path) -> tuple[str, int] | None:
    """Precision and threads that a comparison began with, None where the folder holds none."""
    if not (folder / PLAN).exists():
        return None
    told = read_json(folder / PLAN)
    try:
        return str(told["shared"]["precision"]), int(told["threads"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SalpipeError(f"{folder / PLAN}: damaged; choose another output folder") from error


def setting_name(per_class: str) -> str:
    """What a data budget is called.

    >>> setting_name("15"), setting_name("all")
    ('15 a class', 'all images')
    """
    return "all images" if per_class == ALL else f"{per_class} a class"


def started(arm: Arm, folder: Path) -> Arm:
    """The arm, beginning where the comparison's own pretraining ended if that is where it begins."""
    start = arm.options.get("start")
    if isinstance(start, str) and start.startswith(f"{PRETRAINED}/"):
        return replace(arm, options={**arm.options, "start": str((folder / start).resolve())})
    return arm


def _anchored(config: TrainConfig) -> TrainConfig:
    """The same with absolute paths: the workers of a cluster stand in folders of their own."""
    start, weights = config.start, config.weights
    return replace(
        config,
        start=None if start is None else os.path.abspath(start),
        weights=weights if weights in ("default", "none") else os.path.abspath(weights),
    )


def _with_pretrained(arms: Sequence[Arm], pretraining: Pretraining | None) -> tuple[Arm, ...]:
    """Every arm that is to begin with trained weights told where they are; one arm a size of pretraining."""
    found: list[Arm] = []
    for arm in arms:
        if arm.options.get("init") != "full" or arm.options.get("start"):
            found.append(arm)
        elif pretraining is None:
            raise SalpipeError(
                f"arm {arm.name} begins with a trained two-branch network; give one with --from, or source pairs with "
                "--pretrain"
            )
        else:
            for size in pretraining.sizes:
                name = arm.name if len(pretraining.sizes) == 1 else f"{arm.name}-{size}"
                found.append(replace(arm, name=name, options={**arm.options, "start": f"{PRETRAINED}/{size}"}))
    if pretraining is not None and not any(
        str(arm.options.get("start", "")).startswith(f"{PRETRAINED}/") for arm in found
    ):
        raise SalpipeError("--pretrain: no arm begins with its result; add --arm full")
    return tuple(found)


def _source_split(shards: str) -> dict[str, Any]:
    """The source shards' own splits, or one fold of five where they have none."""
    _, splits = labels_and_splits(ShardFolder(shards))
    own = {Split.TRAIN, Split.VALIDATION} <= {int(split) for split in set(splits.tolist())}
    return {} if own else {"folds": 5, "fold": 1}
