"""What a comparison consists of: arms, data budgets, folds, repeats and rules, and the training runs it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saliency_pipeline.comparison.arms import Arm, with_candidates
from saliency_pipeline.comparison.pretraining import (
    ALL,
    Pretraining,
    pretrained,
    pretraining_config,
    seed_folder,
    started,
    with_pretrained,
)
from saliency_pipeline.comparison.rules import (
    ROPE,
    Primary,
    Rules,
    check_rules,
    choose_primary,
    cumulative_repeats,
)
from saliency_pipeline.errors import OptionError
from saliency_pipeline.images.record import Split
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig

RUNS = "runs"
TRAINING, PRETRAINING, TUNING = "training", "pretraining", "tuning"
"""What a run is for."""


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes:
        folder: of the run, below the comparison's.
        shards: what it is trained on.
        config: its options.
        arm: the arm it belongs to.
        setting: its data budget; for a pretraining the number of source images.
        test: whether the held-out test images are predicted once it is trained.
        purpose: `training`, `pretraining` or `tuning`.
    """

    folder: str
    shards: str
    config: TrainConfig
    arm: str
    setting: str
    test: bool
    purpose: str = TRAINING

    @property
    def label(self) -> str:
        """Its arm, or `pretraining of ARM`. The steps of an inner run are those of its arm."""
        return f"pretraining of {self.arm}" if self.purpose == PRETRAINING else self.arm


@dataclass(frozen=True)
class Design:
    """Choices of a comparison besides its shards, arms and training options.

    Attributes:
        folds: stratified folds; 0 for the shards' own splits.
        repeats: how often folds are made, each time with the next seed.
        per_class: data budgets, training images per class; `all` for all of them.
        pretraining: source pairs for arms with `init = full`.
        primary: the primary question as `ARM[:MEASURE]`; None for the first candidate's final accuracy.
        rope: half width of the region of practical equivalence, in (0, 0.5).
        threshold: accuracy in (0, 1] for the epochs to reach it, chosen beforehand; None for a descriptive one.
        looks: planned analyses of the primary question.
        lrs: learning rates to choose from per arm, budget and pair on an inner split; empty for no tuning.
    """

    folds: int = 5
    repeats: int = 2
    per_class: tuple[str, ...] = (ALL,)
    pretraining: Pretraining | None = None
    primary: str | None = None
    rope: float = ROPE
    threshold: float | None = None
    looks: int = 1
    lrs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        shards: the pairs.
        hash: of the shards' plan.
        arms: what is compared.
        shared: options of every run.
        folds: stratified folds; 0 for the shards' own splits.
        repeats: how often folds are made, each time with the next seed.
        per_class: data budgets, training images per class; `all` for all of them.
        pretraining: source pairs of arms with `init = full`, if there are any.
        threads: of every run, which on a CPU decide its last bits.
        test: whether the shards hold a test split.
        primary: the primary question; None where there is no candidate.
        rope: half width of the region of practical equivalence, in (0, 0.5).
        threshold: accuracy chosen beforehand; None for a descriptive one.
        looks: planned analyses of the primary question.
        lrs: learning rates to choose from; empty for no tuning.
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
    primary: Primary | None = None
    rope: float = ROPE
    threshold: float | None = None
    looks: int = 1
    lrs: tuple[float, ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the data budgets."""
        return tuple(setting_name(text) for text in self.per_class)

    @property
    def rules(self) -> Rules:
        """The rules of its analysis."""
        return Rules(
            self.primary,
            self.rope,
            self.threshold,
            self.looks,
            self.repeats,
            cumulative_repeats(self.repeats, self.looks),
            not self.folds,
        )

    def pretrainings(self, repeats: Iterable[int] | None = None) -> list[Task]:
        """The runs that arms start from: one per pretrained arm and repeat.

        Args:
            repeats: from 0; all of them by default.
        """
        if self.pretraining is None:
            return []
        shards, tasks = self.pretraining.shards, []
        for repeat in range(self.repeats) if repeats is None else repeats:
            for arm in self.arms:
                if (own := pretrained(arm)) is not None:
                    size, folder = own
                    seed = self.shared.seed + repeat
                    config = _anchored(pretraining_config(arm, self.shared, shards, size, seed))
                    place = f"{folder}/{seed_folder(seed)}"
                    tasks.append(Task(place, shards, config, arm.name, size, False, PRETRAINING))
        return tasks

    def tasks(self, folder: Path, repeats: Iterable[int] | None = None) -> list[Task]:
        """The runs of all arms, pair by pair: what is finished first can be compared first.

        Where rates are chosen from, the rate is the first of them; see `tuning.tuned`.

        Args:
            folder: of the comparison.
            repeats: from 0; all of them by default.
        """
        tasks = []
        for repeat in range(self.repeats) if repeats is None else repeats:
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
                        config = _anchored(started(arm, folder, shared.seed).config(shared))
                        pair = f"seed-{shared.seed}" + (f"-fold-{fold}" if fold else "")
                        place = f"{RUNS}/{setting.replace(' ', '-')}/{arm.name}/{pair}"
                        tasks.append(Task(place, self.shards, config, arm.name, setting, self.test))
        return tasks


def make_plan(pairs: ShardFolder, arms: Sequence[Arm], shared: TrainConfig, design: Design, *, threads: int) -> Plan:
    """A comparison whose design was checked.

    Raises:
        SalpipeError: a number, a rule or an arm that cannot be.
    """
    _check_numbers(design)
    arms = with_pretrained(with_candidates(arms), design.pretraining)
    settings = [setting_name(text) for text in design.per_class]
    check_rules(
        rope=design.rope,
        threshold=design.threshold,
        looks=design.looks,
        repeats=design.repeats,
        folds=design.folds,
        lrs=design.lrs,
        arms=arms,
    )
    splits = pairs.splits
    return Plan(
        str(pairs.path.resolve()),
        pairs.header.plan,
        arms,
        replace(shared, lr=design.lrs[0]) if design.lrs else shared,
        design.folds,
        design.repeats,
        tuple(design.per_class),
        design.pretraining,
        threads,
        bool((splits == Split.TEST).any()),
        choose_primary(design.primary, arms, settings),
        design.rope,
        design.threshold,
        design.looks,
        tuple(design.lrs),
    )


def setting_name(per_class: str) -> str:
    """What a data budget is called.

    >>> setting_name("15"), setting_name("all")
    ('15 per class', 'all images')
    """
    return "all images" if per_class == ALL else f"{per_class} per class"


def _check_numbers(design: Design) -> None:
    if design.folds < 0 or design.folds == 1:
        raise OptionError(f"--folds {design.folds}: use 2 or more, or 0 for the shards' own splits")
    if design.repeats < 1:
        raise OptionError(f"--repeats {design.repeats}: use 1 or more")
    sizes = design.pretraining.sizes if design.pretraining else ()
    for name, values in (("per-class", design.per_class), ("pretrain-size", sizes)):
        for text in values:
            if text != ALL and not (text.isascii() and text.isdigit() and text[0] != "0" and len(text) < 16):
                raise OptionError(f"--{name} {text}: use numbers of images, or 'all', with commas between them")
        if len(set(values)) < len(values):
            raise OptionError(f"--{name} {','.join(values)}: names a number twice")


def _anchored(config: TrainConfig) -> TrainConfig:
    """The same with absolute paths: the workers of a cluster stand in folders of their own."""
    start, weights = config.start, config.weights
    return replace(
        config,
        start=None if start is None else os.path.abspath(start),
        weights=weights if weights in ("default", "none") else os.path.abspath(weights),
    )
