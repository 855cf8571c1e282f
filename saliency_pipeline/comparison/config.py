"""Settings of a comparison: its folds, budgets and rules, fixed before the runs, and how the runs are executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saliency_pipeline.errors import OptionError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.settings import check_settings, documented, setting
from saliency_pipeline.training.trackers import TRACKERS

ALL = "all"


@documented
@dataclass(frozen=True)
class ComparisonConfig:
    """Settings of a comparison besides its shards, arms and training options."""

    primary: str | None = setting(
        None,
        "Primary question: a candidate and final (accuracy), area (under the first epochs) or speed, for the last "
        "data budget.",
        metavar="ARM[:MEASURE]",
        default_text="the first candidate's final accuracy",
    )
    rope: float = setting(
        1.0,
        "Half width of the region of practical equivalence, in points.",
        range=(0.001, 49.999),
        metavar="POINTS",
    )
    threshold: float | None = setting(
        None,
        "Accuracy for the number of epochs to a threshold; choose it before seeing results.",
        range=(1e-9, 1),
        metavar="SHARE",
        default_text="95 % of the reference's, descriptive",
    )
    looks: int = setting(
        1,
        "Analyze the primary question N times while repeats are added, with an overall error rate of 5 %; stop when it "
        "is decided.",
        range=(1, 1000),
        metavar="N",
    )
    folds: int = setting(5, "Number of stratified folds; 0 for the shards' own splits.", range=(0, 1000), metavar="K")
    repeats: int = setting(
        2,
        "Number of repeats, each with its own folds and seed; fixed once a run is finished.",
        range=(1, 100_000),
        metavar="N",
    )
    per_class: tuple[str, ...] = setting(
        (ALL,),
        "Training images per class; several numbers give one data budget each.",
        metavar="N,N,all",
        separator=",",
    )
    pretrain: str | None = setting(
        None,
        "Shards to pretrain the arm 'full' and a baseline for it on, once per repeat.",
        metavar="SHARDS",
    )
    pretrain_size: tuple[str, ...] = setting(
        (ALL,),
        "Number of source images for pretraining; several numbers give one arm each.",
        metavar="N,N,all",
        separator=",",
    )
    lrs: tuple[float, ...] = setting(
        (),
        "Peak learning rate. If several are given, the best one is chosen per arm, budget and pair, on an inner split "
        "of the training images.",
        range=(1e-12, 1e4),
        option="lr",
        metavar="LR,LR",
        separator=",",
        default_text="0.0001",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.folds == 1:
            raise OptionError("--folds 1: use 2 or more, or 0 for the shards' own splits")
        for name, values in (("per-class", self.per_class), ("pretrain-size", self.pretrain_size)):
            _check_sizes(name, values)
        if self.looks > self.repeats:
            raise OptionError(
                f"--looks {self.looks}: there are {self.repeats} repeats, and every look needs a new one; use "
                f"--repeats {self.looks}"
            )
        if self.looks > 1 and not self.folds:
            raise OptionError(
                f"--looks {self.looks}: needs folds, not the shards' own split; use --folds 5 or --looks 1"
            )
        rates = [f"{lr:g}" for lr in self.lrs]
        if len(set(rates)) < len(rates):
            raise OptionError(f"--lr {','.join(rates)}: has a rate twice")

    @property
    def margin(self) -> float:
        """`rope` as a share of the images, in (0, 0.5)."""
        return self.rope / 100

    @property
    def look_repeats(self) -> tuple[int, ...]:
        """Number of repeats that each look analyzes, the earlier ones included.

        >>> ComparisonConfig(repeats=7, looks=3).look_repeats
        (3, 5, 7)
        """
        return tuple(-(-look * self.repeats // self.looks) for look in range(1, self.looks + 1))


@documented
@dataclass(frozen=True)
class Execution(Workers):
    """How the runs of a comparison are executed."""

    jobs: int | None = setting(
        None,
        "Number of concurrent runs.",
        range=(1, 100_000),
        metavar="N",
        default_text="one per core, or one on a GPU",
    )
    assess_images: int = setting(
        100,
        "Images on which the maps themselves are measured, for the report: pointing game where there are boxes, and "
        "SRG; 0 for no measurement.",
        range=(0, 1 << 30),
        metavar="N",
    )
    log: tuple[str, ...] = setting(
        (),
        f"Also send the metrics of every epoch of every run to these trackers: {', '.join(TRACKERS)}.",
        choices=tuple(TRACKERS),
        metavar="NAME[,NAME]",
        separator=",",
    )


def _check_sizes(name: str, values: Sequence[str]) -> None:
    if not values:
        raise OptionError(f"--{name}: empty; use numbers of images, or 'all', with commas between them")
    for text in values:
        if text != ALL and not (text.isascii() and text.isdigit() and text[0] != "0" and len(text) < 16):
            raise OptionError(f"--{name} {text}: use numbers of images, or 'all', with commas between them")
    if len(set(values)) < len(values):
        raise OptionError(f"--{name} {','.join(values)}: has a number twice")
