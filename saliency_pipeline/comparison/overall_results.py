"""Results over several data sets: their results.json as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saliency_pipeline.comparison.arms import Question
from saliency_pipeline.comparison.results import Images, PrimaryQuestion, Verdict
from saliency_pipeline.statistics.hierarchy import Posterior

FORMAT, FORMAT_VERSION = "salpipe-datasets", 1


@dataclass(frozen=True)
class SharedArm:
    """An arm that was compared on all data sets, see `arms.Arm`."""

    name: str
    kind: str
    of: str
    reference: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A data set that counts, with the verdict of its own comparison; `report` is the relative path of its page."""

    name: str
    report: str
    classes: int
    images: Images
    pairs: int
    own_split: bool
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class LeftOut:
    """A data set that does not count, and why."""

    name: str
    report: str
    reason: str


@dataclass(frozen=True)
class DataSetEstimate:
    """The difference on one data set: mean, standard error, degrees of freedom, 95 % interval, and shrunken mean."""

    dataset: str
    mean: float
    error: float
    freedom: float
    low: float
    high: float
    shrunken: float | None


@dataclass(frozen=True)
class OverallQuestion(Question):
    """A contrast over all data sets that have an estimate of it; the primary one has a verdict."""

    measure: str
    estimates: tuple[DataSetEstimate, ...]
    posterior: Posterior | None
    verdict: str | None


@dataclass(frozen=True)
class ArmInterquartile:
    """The interquartile mean of an arm's final accuracies on all data sets, with its 95 % interval."""

    name: str
    kind: str
    runs: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OverallResults:
    """results.json over several data sets; the primary question comes first among `questions`."""

    format: str
    format_version: int
    arms: tuple[SharedArm, ...]
    primary: PrimaryQuestion
    rope: float
    level: float
    minimum_datasets: int
    datasets: tuple[DataSet, ...]
    left_out: tuple[LeftOut, ...]
    questions: tuple[OverallQuestion, ...]
    interquartile: tuple[ArmInterquartile, ...]
    warnings: tuple[str, ...]
    verdict: Verdict
