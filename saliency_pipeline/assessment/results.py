"""Results of an assessment: assess.json as frozen dataclasses, whose fields are its keys, and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.assessment.measured import Measured
from saliency_pipeline.assessment.metrics.metric import Column
from saliency_pipeline.files import write_atomically
from saliency_pipeline.serialization import to_json
from saliency_pipeline.tables import write_table

FORMAT, FORMAT_VERSION = "salpipe-assessment", 1
RESULTS, TABLE = "assess.json", "per-image.csv"

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"


@dataclass(frozen=True)
class Estimate:
    """Mean of a column over the images that have a value.

    Attributes:
        mean: over images; None without values.
        low: lower end of the 95 % interval of the mean; None where there is none.
        high: its upper end.
        error: standard error of the mean; None for fewer than two images.
        images: number of images with a value.
        class_mean: mean over classes of the class means, where the metric's paper reports it; else None.
    """

    mean: float | None
    low: float | None
    high: float | None
    error: float | None
    images: int
    class_mean: float | None = None


@dataclass(frozen=True)
class Band:
    """Pointwise mean of a curve over images, and the ends of its 95 % intervals; None where no image has a value."""

    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Example:
    """An image by its key, its class (empty if unlabeled), and its value in the headline column."""

    key: str
    class_: str
    value: float


@dataclass(frozen=True)
class MethodResult:
    """A method and its means.

    Attributes:
        name: canonical name.
        label: short name, unique among the methods: without parameters that do not distinguish it.
        floor: whether it looks at no network.
        stored: whether its maps are in the shards.
        signed: whether negative values speak against the class.
        class_specific: whether its maps explain a class.
        cost: forward passes per map, or None.
        columns: estimates by column.
        curves: mean curves by name.
        best: images with the best values in the headline column, the best first; empty for floors.
        worst: images with the worst values, the worst first; none that is among the best.
    """

    name: str
    label: str
    floor: bool
    stored: bool
    signed: bool
    class_specific: bool
    cost: float | None
    columns: Mapping[str, Estimate]
    curves: Mapping[str, Band]
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()


@dataclass(frozen=True)
class CurveResult:
    """A curve of a metric: see `metrics.metric.Curve`; `points` are the horizontal positions of its points."""

    name: str
    title: str
    horizontal: str
    vertical: str
    points: tuple[float, ...]


@dataclass(frozen=True)
class MetricResult:
    """A metric: see `metrics.metric.Metric`; `sampled` is true if only the sampled images have values."""

    name: str
    sampled: bool
    needs_boxes: bool
    definition: str
    paper: str
    columns: tuple[Column, ...]
    curves: tuple[CurveResult, ...]


@dataclass(frozen=True)
class Contrast:
    """Paired difference of two methods over the images on which both have a value.

    Attributes:
        method: the method.
        against: the method that it is compared with.
        images: number of images.
        mean: mean of the differences, method minus against; None without images.
        low: lower end of the 95 % interval of the mean; None where there is none.
        high: its upper end.
        wins: number of images on which the method is better.
        losses: number of images on which it is worse.
        ties: number of images on which both are equal, up to the rounding of float32.
        p: two-sided p of the exact sign test.
        p_holm: the same, adjusted for all contrasts of the column (Holm 1979).
        verdict: `better` or `worse` if `p_holm` < 0.05 and mean and signs agree; else `undecided`.
    """

    method: str
    against: str
    images: int
    mean: float | None
    low: float | None
    high: float | None
    wins: int
    losses: int
    ties: int
    p: float
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Ranked:
    """A method's place by the headline column.

    Attributes:
        method: canonical name.
        place: from 1, floors not counted; None for floors and for methods without values.
        leading: whether it is the best method or cannot be distinguished from it.
        beats: for each main column whether the method is better than center-prior; None where that is undefined.
    """

    method: str
    place: int | None
    leading: bool
    beats: Mapping[str, bool | None]


@dataclass(frozen=True)
class Results:
    """assess.json.

    Attributes:
        images: number of images.
        sampled: number of images that were sampled for the metrics that need the network.
        boxes: number of images with boxes.
        classes: number of classes of the data set.
        methods: in the order of the shards, floors last.
        metrics: in the order of the report.
        headline: column by which methods are ranked; None if no column with a direction has values.
        contrasts: by main column with a direction: `contrasts_shown` says which pairs of methods.
        contrasts_shown: which pairs are compared, and over which Holm's adjustment runs.
        ranking: all methods, the best first; floors are among them.
        verdict: the ranking in words.
        notes: what was left out, and why; which methods have maps of zeros.
        about: shards, source model, settings, versions and durations, as measured.
    """

    format: str
    format_version: int
    images: int
    sampled: int
    boxes: int
    classes: int
    methods: tuple[MethodResult, ...]
    metrics: tuple[MetricResult, ...]
    headline: str | None
    contrasts: Mapping[str, tuple[Contrast, ...]]
    contrasts_shown: str
    ranking: tuple[Ranked, ...]
    verdict: str
    notes: tuple[str, ...]
    about: Mapping[str, Any]

    def method(self, name: str) -> MethodResult:
        """The method of a canonical name; StopIteration where there is none."""
        return next(method for method in self.methods if method.name == name)

    def column(self, name: str) -> Column:
        """The column of a name; StopIteration where there is none."""
        return next(column for metric in self.metrics for column in metric.columns if column.name == name)


def finite(value: float) -> float | None:
    """A number with nine digits, which do not depend on the order of summation; None where it is not finite."""
    return float(f"{value:.9g}") if np.isfinite(value) else None


def write_results(folder: Path, results: Results, measured: Measured) -> None:
    """Write `assess.json` and `per-image.csv`; the same arguments give the same bytes.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    document = json.dumps(to_json(results), indent=1, sort_keys=True, allow_nan=False)
    write_atomically(folder / RESULTS, document + "\n")
    columns = [column.name for metric in measured.metrics for column in metric.columns]
    write_table(folder / TABLE, ("key", "class", "method", *columns), _rows(measured, columns))


def _rows(measured: Measured, columns: list[str]) -> Iterator[list[object]]:
    """Lines of the table, image by image and method by method; a missing value is an empty cell."""
    missing = np.full(len(measured.keys), np.nan)
    tables = [
        (method.name, np.stack([measured.values[method.name].get(name, missing) for name in columns], 1))
        for method in measured.methods
        if columns
    ]
    for number, (key, label) in enumerate(zip(measured.keys, measured.labels.tolist(), strict=True)):
        for name, table in tables:
            values = ["" if value != value else value for value in table[number].tolist()]
            yield [key, measured.classes[label] if label >= 0 else "", name, *values]
