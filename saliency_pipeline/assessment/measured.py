"""`Measured`: all values of an assessment, before they are summarized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.metrics.metric import Metric

FLOORS = ("random", "center-prior", "edges")
"""Methods that look at no network, in every table: a method that is not better says nothing about the network."""


@dataclass(frozen=True)
class Assessed:
    """A method whose maps are assessed.

    Attributes:
        name: canonical name.
        floor: whether it is one of `FLOORS`.
        stored: whether its maps are in the shards; those of a floor may be computed instead.
        signed: whether negative values speak against the class.
        class_specific: whether its maps explain a class.
        cost: forward passes per image that a map costs, a backward pass counting two; None if unknown.
    """

    name: str
    floor: bool
    stored: bool
    signed: bool
    class_specific: bool
    cost: float | None


@dataclass(frozen=True)
class Measured:
    """Values of N images, of which M were sampled for the metrics that need the network.

    Attributes:
        keys: names of the images.
        labels: (N,) int64, index into `classes`; -1 unlabeled.
        classes: names of the classes.
        sample: (M,) int64, rising positions of the sampled images; empty where no metric needs the network.
        boxes: number of the N images that have boxes.
        methods: the methods, those of the shards first.
        metrics: the metrics, in the order of the report.
        values: method to column to (N,) float64; NaN where undefined, as for images outside the sample.
        curves: method to curve to (N, P) float64, for metrics that have curves; NaN for images without one.
        about: shards, source model, settings, versions and durations; JSON-serializable.
        notes: what was left out, and why; which methods have maps of zeros. One line each.
    """

    keys: Sequence[str]
    labels: npt.NDArray[np.int64]
    classes: Sequence[str]
    sample: npt.NDArray[np.int64]
    boxes: int
    methods: tuple[Assessed, ...]
    metrics: tuple[Metric, ...]
    values: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
    curves: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def values_of(self, method: str, column: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values (R,) of a method at some positions; NaN where it has none."""
        values = self.values.get(method, {}).get(column)
        return np.full(len(rows), np.nan) if values is None else values[rows]
