"""Assessments made up from a seed, for tests of statistics and page: no network and no map is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.inquiry import Inquiry
from saliency_pipeline.assessment.measured import FLOORS, Assessed, Measured
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Curve, Metric, Values
from saliency_pipeline.settings import setting

METHODS = (
    "gradcam:relu=true",
    "layercam",
    "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean",
    "smoothgrad:noise=0.3,samples=25,seed=0,stat=mean",
    "given",
)


@dataclass(frozen=True)
class Fake(Metric):
    """A metric without values of its own."""

    def values(self, ask: Inquiry) -> Values:
        """Nothing: values are made up."""
        return {}

    def points(self, curve: str) -> npt.NDArray[np.float64]:
        """Eleven points."""
        return np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Pointing(Fake):
    """A metric of maps and boxes, whose paper reports means over classes."""

    tolerance: int = setting(15, "Tolerance in pixels.", range=(0, 100))
    name: ClassVar[str] = "pointing"
    columns: ClassVar[tuple[Column, ...]] = (Column("pointing", "Pointing game", True, by_class=True),)
    needs_boxes: ClassVar[bool] = True
    definition: ClassVar[str] = "Share of images whose strongest pixel is in a box: argmax(map) in box."
    paper: ClassVar[str] = "Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016"


@dataclass(frozen=True)
class Sparseness(Fake):
    """A metric without a direction."""

    name: ClassVar[str] = "sparseness"
    columns: ClassVar[tuple[Column, ...]] = (Column("sparseness", "Sparseness", None),)
    definition: ClassVar[str] = "Gini index of the absolute values."
    paper: ClassVar[str] = "Hurley and Rickard 2009"


@dataclass(frozen=True)
class Deletion(Fake):
    """A metric with a curve, where lower is better."""

    name: ClassVar[str] = "deletion"
    columns: ClassVar[tuple[Column, ...]] = (Column("deletion", "Deletion", False),)
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("deletion-curve", "Deletion", "Share of pixels removed", "Softmax of the explained class"),
    )
    cost: ClassVar[Cost] = Cost.SCORES
    definition: ClassVar[str] = "Area under p(removed), most relevant pixels first; 0 < p <= 1."
    paper: ClassVar[str] = "Petsiuk et al., RISE, BMVC 2018"


@dataclass(frozen=True)
class Gain(Fake):
    """The headline."""

    name: ClassVar[str] = "srg"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("srg", "SRG", True, low=-1.0),
        Column("steepness", "Steepness", True, low=None, high=None),
    )
    cost: ClassVar[Cost] = Cost.SCORES
    definition: ClassVar[str] = "AUC(LeRF) − AUC(MoRF)."
    paper: ClassVar[str] = "Blücher et al. 2024"


@dataclass(frozen=True)
class Energy(Fake):
    """A metric whose second column may be the headline."""

    name: ClassVar[str] = "energy"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("energy", "Energy in boxes", True),
        Column("energy-gain", "Energy gain", True, high=None),
    )
    definition: ClassVar[str] = "share of the positive values in boxes"
    paper: ClassVar[str] = "Wang et al. 2020"


METRICS: tuple[Metric, ...] = (Pointing(), Sparseness(), Deletion(), Gain())


def assessed(name: str, *, cost: float | None = 3.0) -> Assessed:
    """A method; floors by name."""
    floor = name.partition(":")[0] in FLOORS
    return Assessed(name, floor, not floor, name.startswith("smooth"), not floor, 0.0 if floor else cost)


def measured(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    metrics: Sequence[Metric] = METRICS,
    curves: Mapping[str, Mapping[str, npt.NDArray[np.float64]]] | None = None,
    sample: Sequence[int] | None = None,
    **changes: Any,
) -> Measured:
    """An assessment with values by method and column; all images are sampled by default."""
    arrays = {name: {key: np.array(each, np.float64) for key, each in own.items()} for name, own in values.items()}
    images = max((len(each) for own in arrays.values() for each in own.values()), default=0)
    result = Measured(
        keys=[f"{number:03}.jpg" for number in range(images)],
        labels=np.arange(images, dtype=np.int64) % 2,
        classes=("cat", "dog"),
        sample=np.arange(images, dtype=np.int64) if sample is None else np.array(sample, np.int64),
        boxes=images,
        methods=tuple(assessed(name) for name in arrays),
        metrics=tuple(metrics),
        values=arrays,
        curves=curves or {},
        about={"seed": 0, "facts": [["Network", "resnet50.a1_in1k"]]},
    )
    return replace(result, **changes)


def random_assessment(
    methods: Sequence[str] = METHODS,
    *,
    metrics: Sequence[Metric] = METRICS,
    images: int = 60,
    sampled: int = 40,
    seed: int = 0,
    **changes: Any,
) -> Measured:
    """An assessment in which the first methods are better than the last ones and those better than the floors."""
    random = np.random.default_rng(seed)
    names = [*methods, *FLOORS]
    sample = np.sort(random.choice(images, sampled, replace=False))
    outside = np.setdiff1d(np.arange(images), sample)
    difficulty = random.normal(0, 0.08, images)
    values: dict[str, dict[str, Any]] = {name: {} for name in names}
    curves: dict[str, dict[str, Any]] = {name: {} for name in names}
    for place, name in enumerate(names):
        quality = 0.75 - 0.35 * place / len(names) - 0.1 * (name in FLOORS)
        for metric in metrics:
            for column in metric.columns:
                level = 1 - quality if column.higher is False else quality
                own = np.clip(level + difficulty + random.normal(0, 0.06, images), 0, 1)
                if column.by_class:
                    own = (own > random.random(images)).astype(np.float64)
                if metric.cost != Cost.MAPS:
                    own[outside] = np.nan
                values[name][column.name] = own
            for curve in metric.curves:
                points = metric.points(curve.name)
                fall = np.exp(-(1 + 6 * quality) * points) + 0.1 * random.random((sampled, 1)) * points
                curves[name][curve.name] = fall * (0.9 + 0.05 * random.random((sampled, 1)))
    return measured(values, metrics=metrics, curves=curves, sample=list(sample), **changes)
