"""Plan of a comparison: arms, data budgets, folds, repeats and rules, and its training runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saliency_pipeline.comparison.arms import Arm, with_candidates
from saliency_pipeline.comparison.config import ALL, ComparisonConfig
from saliency_pipeline.comparison.pretraining import (
    pretrained,
    pretraining_config,
    seed_folder,
    started,
    with_pretrained,
)
from saliency_pipeline.comparison.rules import AREA, SPEED, Primary, Rules, choose_primary
from saliency_pipeline.comparison.self_maps import baseline_arm, check_self_maps, reads_own_baseline, with_baseline
from saliency_pipeline.errors import OptionError
from saliency_pipeline.images.record import Split
from saliency_pipeline.shards.methods import stored_method
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.statistics.speed import EARLY_EPOCHS
from saliency_pipeline.storage.mirror import local_folder, origin_of
from saliency_pipeline.training.config import SELF, TrainConfig
from saliency_pipeline.training.validation import validated_epochs

RUNS = "runs"
TRAINING, PRETRAINING, TUNING = "training", "pretraining", "tuning"
"""Purposes of a run."""


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes:
        folder: of the run, below the comparison's.
        shards: folder of its training images.
        config: its options.
        arm: the arm it belongs to.
        setting: its data budget; for a pretraining the number of source images.
        test: true if the held-out test images are predicted once it is trained.
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
class Plan:
    """A comparison.

    Attributes:
        shards: the pairs.
        hash: `ShardFolder.identity` of the shards.
        arms: the arms, those that start from a pretraining with its folder.
        shared: options of every run.
        config: folds, budgets and rules.
        threads: of every run, which on a CPU decide its last bits.
        test: true if the shards have a test split.
        primary: the primary question; None where there is no candidate.
    """

    shards: str
    hash: str
    arms: tuple[Arm, ...]
    shared: TrainConfig
    config: ComparisonConfig
    threads: int
    test: bool
    primary: Primary | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the data budgets."""
        return tuple(setting_name(text) for text in self.config.per_class)

    @property
    def rules(self) -> Rules:
        """The rules of its analysis."""
        return Rules(self.primary, self.config)

    def pretrainings(self, repeats: Iterable[int] | None = None) -> list[Task]:
        """The runs that arms start from: one per pretrained arm and repeat; arguments as of `tasks`."""
        if (shards := self.config.pretrain) is None:
            return []
        tasks = []
        for repeat in range(self.config.repeats) if repeats is None else repeats:
            for arm in self.arms:
                if (own := pretrained(arm)) is not None:
                    size, folder = own
                    seed = self.shared.seed + repeat
                    config = _anchored(pretraining_config(arm, self.shared, shards, size, seed))
                    place = f"{folder}/{seed_folder(seed)}"
                    tasks.append(Task(place, shards, config, arm.name, size, False, PRETRAINING))
        return tasks

    def tasks(self, folder: Path, repeats: Iterable[int] | None = None) -> list[Task]:
        """The runs of all arms, pair by pair, so that the first pairs can be compared early.

        Where rates are chosen from, the rate is the first of them; see `tuning.tuned`.

        Args:
            folder: of the comparison.
            repeats: from 0; all of them by default.
        """
        tasks = []
        for repeat in range(self.config.repeats) if repeats is None else repeats:
            for fold in range(1, self.config.folds + 1) if self.config.folds else (None,):
                for per_class, setting in zip(self.config.per_class, self.settings, strict=True):
                    for arm in self.arms:
                        shared = replace(
                            self.shared,
                            folds=self.config.folds or None,
                            fold=fold,
                            seed=self.shared.seed + repeat,
                            per_class=None if per_class == ALL else int(per_class),
                        )
                        pair = f"seed-{shared.seed}" + (f"-fold-{fold}" if fold else "")
                        runs = f"{RUNS}/{setting.replace(' ', '-')}"
                        own = started(arm, folder, shared.seed)
                        if reads_own_baseline(arm):
                            own = with_baseline(own, shared, folder / runs / baseline_arm(self.arms).name / pair)
                        config = _anchored(own.config(shared))
                        place = f"{runs}/{arm.name}/{pair}"
                        tasks.append(Task(place, self.shards, config, arm.name, setting, self.test))
        return tasks


def make_plan(
    pairs: ShardFolder, arms: Sequence[Arm], shared: TrainConfig, config: ComparisonConfig, *, threads: int
) -> Plan:
    """The plan of a comparison.

    Raises:
        SalpipeError: an arm or a primary question that is not possible, or no maps of an arm's method.
    """
    arms = with_pretrained(with_candidates([_with_stored_method(arm, pairs) for arm in arms]), config)
    check_self_maps(arms, shared)
    if own := [arm.name for arm in arms if "lr" in arm.options and config.lrs]:
        raise OptionError(f"arm {own[0]}: has its own lr, and --lr names several; leave one of them out")
    splits = pairs.splits
    primary = choose_primary(config.primary, arms, [setting_name(text) for text in config.per_class])
    _check_measured(primary, shared)
    return Plan(
        pairs.origin,
        pairs.identity,
        arms,
        replace(shared, lr=config.lrs[0]) if config.lrs else shared,
        config if config.pretrain is None else replace(config, pretrain=origin_of(local_folder(config.pretrain))),
        threads,
        bool((splits == Split.TEST).any()),
        primary,
    )


def _check_measured(primary: Primary | None, shared: TrainConfig) -> None:
    """Raises OptionError if the primary question needs epochs that `--validate` leaves out."""
    needed = {AREA: min(EARLY_EPOCHS, shared.epochs), SPEED: shared.epochs}
    if primary is None or primary.measure not in needed:
        return
    if not set(range(1, needed[primary.measure] + 1)) <= set(validated_epochs(shared.validate, shared.epochs)):
        raise OptionError(
            f"--primary {primary.arm}:{primary.measure}: needs the accuracy after epochs 1 to "
            f"{needed[primary.measure]}, and --validate {shared.validate} leaves some out; use --validate all"
        )


def _with_stored_method(arm: Arm, pairs: ShardFolder) -> Arm:
    """The arm with the stored name of its method, if it names one; maps of its own baseline are not stored."""
    if (method := arm.options.get("method")) is None or arm.options.get("maps") == SELF:
        return arm
    return replace(arm, options={**arm.options, "method": stored_method(pairs, method)})


def setting_name(per_class: str) -> str:
    """Name of a data budget.

    >>> setting_name("15"), setting_name("all")
    ('15 per class', 'all images')
    """
    return "all images" if per_class == ALL else f"{per_class} per class"


def _anchored(config: TrainConfig) -> TrainConfig:
    """The same with absolute paths: workers of a cluster have other working directories."""
    start, baseline, weights = config.start, config.from_baseline, config.weights
    return replace(
        config,
        start=None if start is None else os.path.abspath(start),
        from_baseline=None if baseline is None else os.path.abspath(baseline),
        weights=weights if weights in ("default", "none") else os.path.abspath(weights),
    )
