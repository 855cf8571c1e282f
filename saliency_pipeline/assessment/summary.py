"""From the values of images to results: means with intervals, comparisons, ranking and verdict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.measured import Assessed, Measured
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Metric
from saliency_pipeline.assessment.ranking import SHOWN, compare_methods, rank, verdict_of
from saliency_pipeline.assessment.results import (
    FORMAT,
    FORMAT_VERSION,
    Band,
    CurveResult,
    Estimate,
    Example,
    MethodResult,
    MetricResult,
    Results,
    finite,
)
from saliency_pipeline.assessment.wording import short_labels
from saliency_pipeline.statistics.means import means_of_images

Values = npt.NDArray[np.float64]

HEADLINES = ("srg", "energy-gain", "pointing")
"""Columns that rank the methods: the first that has values."""

EXAMPLES = 2
"""Number of best and of worst images that are listed per method."""


def summarize(measured: Measured) -> Results:
    """Compute all statistics of an assessment.

    Intervals are 95 % percentile bootstrap intervals over images (`statistics.means`), and describe other images of
    the same kind with this network. Paired differences are over the images on which both methods have a value.

    Args:
        measured: the values of all images; a method may lack columns, and any value may be NaN.
    """
    columns = {column.name: column for metric in measured.metrics for column in metric.columns}
    estimates: dict[str, dict[str, Estimate]] = {method.name: {} for method in measured.methods}
    bands: dict[str, dict[str, Band]] = {method.name: {} for method in measured.methods}
    for metric in measured.metrics:
        for column in metric.columns:
            for name, estimate in _estimates(measured, column, rows_of(measured, metric)).items():
                estimates[name][column.name] = estimate
        for curve in metric.curves:
            for name in bands:
                if (values := measured.curves.get(name, {}).get(curve.name)) is not None:
                    bands[name][curve.name] = _band(values)
    headline = _headline(measured, estimates)
    contrasts = {
        metric.columns[0].name: compare_methods(measured, metric.columns[0], rows_of(measured, metric), estimates)
        for metric in measured.metrics
        if metric.columns[0].higher is not None
    }
    if headline and headline not in contrasts:
        metric = next(metric for metric in measured.metrics if columns[headline] in metric.columns)
        contrasts[headline] = compare_methods(measured, columns[headline], rows_of(measured, metric), estimates)
    labels = short_labels([method.name for method in measured.methods])
    ranking = rank(measured.methods, columns[headline] if headline else None, estimates, contrasts)
    examples = {m.name: _examples(measured, m, columns[headline] if headline else None) for m in measured.methods}
    return Results(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        images=len(measured.keys),
        sampled=len(measured.sample),
        boxes=measured.boxes,
        classes=len(measured.classes),
        methods=tuple(
            MethodResult(
                **vars(method),
                label=labels[method.name],
                columns=estimates[method.name],
                curves=bands[method.name],
                best=examples[method.name][0],
                worst=examples[method.name][1],
            )
            for method in measured.methods
        ),
        metrics=tuple(_metric(metric) for metric in measured.metrics),
        headline=headline,
        contrasts=contrasts,
        contrasts_shown=SHOWN,
        ranking=ranking,
        verdict=verdict_of(ranking, columns[headline] if headline else None, estimates, contrasts, labels),
        notes=tuple(measured.notes),
        about=measured.about,
    )


def rows_of(measured: Measured, metric: Metric) -> npt.NDArray[np.int64]:
    """Positions of the images that a metric has values for: all, or the sampled ones."""
    return np.arange(len(measured.keys)) if metric.cost == Cost.MAPS else measured.sample


def _estimates(measured: Measured, column: Column, rows: npt.NDArray[np.int64]) -> dict[str, Estimate]:
    """Estimates of a column by method."""
    names = [method.name for method in measured.methods]
    values = np.stack([measured.values_of(name, column.name, rows) for name in names], 1)
    means = means_of_images(values, column.low, column.high)
    labels = measured.labels[rows]
    return {
        name: Estimate(
            mean=finite(means.mean[i]),
            low=finite(means.low[i]),
            high=finite(means.high[i]),
            error=finite(means.error[i]),
            images=int(means.count[i]),
            class_mean=_class_mean(values[:, i], labels) if column.by_class else None,
        )
        for i, name in enumerate(names)
    }


def _class_mean(values: Values, labels: npt.NDArray[np.int64]) -> float | None:
    """Mean over the classes that have values of the mean of their images; None without labels."""
    counted = (labels >= 0) & ~np.isnan(values)
    if not counted.any():
        return None
    sums, counts = np.bincount(labels[counted], values[counted]), np.bincount(labels[counted])
    return finite(float(np.mean(sums[counts > 0] / counts[counts > 0])))


def _band(values: Values) -> Band:
    means = means_of_images(values)
    # a point that is equal on all images has no width
    constant = np.isnan(means.low)
    ends = np.where(constant, means.mean, means.low), np.where(constant, means.mean, means.high)
    return Band(*(tuple(finite(value) for value in each) for each in (means.mean, *ends)))


def _headline(measured: Measured, estimates: dict[str, dict[str, Estimate]]) -> str | None:
    """Column that ranks the methods: the first of `HEADLINES`, else of all with a direction, that has values."""
    directed = [column.name for metric in measured.metrics for column in metric.columns if column.higher is not None]
    explaining = [method.name for method in measured.methods if not method.floor] or list(estimates)
    candidates = [name for name in HEADLINES if name in directed] + directed
    return next((name for name in candidates if any(estimates[each][name].images for each in explaining)), None)


def _examples(
    measured: Measured, method: Assessed, column: Column | None
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Images on which a method is best and worst; of equal values the first images."""
    if column is None or method.floor:
        return (), ()
    values = measured.values_of(method.name, column.name, np.arange(len(measured.keys)))
    order = np.argsort(-values if column.higher else values, kind="stable")[: int((~np.isnan(values)).sum())]
    best, rest = order[:EXAMPLES], order[EXAMPLES:]
    worst = rest[::-1][:EXAMPLES]
    return tuple(_example(measured, values, i) for i in best), tuple(_example(measured, values, i) for i in worst)


def _example(measured: Measured, values: Values, image: int) -> Example:
    label = int(measured.labels[image])
    name = measured.classes[label] if label >= 0 else ""
    return Example(measured.keys[image], name, float(f"{values[image]:.9g}"))


def _metric(metric: Metric) -> MetricResult:
    curves = tuple(
        CurveResult(**vars(curve), points=tuple(float(point) for point in metric.points(curve.name)))
        for curve in metric.curves
    )
    return MetricResult(
        name=metric.canonical,
        sampled=metric.cost != Cost.MAPS,
        needs_boxes=metric.needs_boxes,
        definition=metric.definition,
        paper=metric.paper,
        columns=metric.columns,
        curves=curves,
    )
