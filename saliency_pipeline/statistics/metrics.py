"""Classification metrics with confidence intervals: accuracy, F1, likelihood, calibration, per class and overall.

Conventions
    labels (N,) int64 in [0, C), N >= 1; logits (N, C) of any scale; probabilities (N, C) float32 or float64, each row
    summing to 1. `validate` refuses anything else; the metrics themselves take it for granted.
    The predicted class is the one with the highest value; ties go to the lowest class, as in a stable descending sort,
    so that a constant output predicts class 0. A label is in the top K where fewer than K classes precede it.
    Precision without a prediction of the class, recall without an image of it, and F1 with neither are not defined:
    None per class, and left out of macro F1. Top 5 is None with five classes or fewer, where it is always 1.
    Probabilities count as at least 1.2e-38, the smallest normal float32, so that the likelihood stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.metrics import precision_recall_fscore_support

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.confusion import Pairs, count_pairs, to_json
from saliency_pipeline.statistics.power import LEVEL
from saliency_pipeline.statistics.shares import wilson

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating]
Interval = list[float]
"""Lower and upper end."""

TOP = 5
"""The K of top-K accuracy, which is defined for more classes than K."""
BINS = 15
RESAMPLES = 2000

# rows that are converted to float64 at a time: ImageNet's validation logits would take 400 MB at once
_ROWS = 4096
_TOLERANCE = 1e-3
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, in [0, 1] or None where not defined, with Wilson's intervals at `LEVEL`.

    Attributes:
        name: name of the class.
        support: number of its images.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    precision_low: float | None
    precision_high: float | None
    recall_low: float | None
    recall_high: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable form; the name is called `class`."""
        values = asdict(self)
        return {"class": values.pop("name"), **values}


@dataclass(frozen=True)
class Bin:
    """Images with a confidence in (`low`, `high`]: their number, mean confidence and accuracy; None without any."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error in [0, 1] and its bins."""

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Intervals:
    """Confidence intervals at `level`; None for top 5 of five classes or fewer. See `intervals`."""

    level: float
    resamples: int
    top1: Interval
    top5: Interval | None
    macro_f1: Interval


@dataclass(frozen=True, eq=False)
class Metrics:
    """All metrics of a classifier on labeled images; `images` and `classes` are counts, `nll` is in nats."""

    images: int
    classes: int
    top1: float
    top5: float | None
    macro_f1: float
    nll: float
    intervals: Intervals
    calibration: Calibration
    per_class: tuple[ClassMetrics, ...]
    confusion: Pairs

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable form."""
        return vars(self) | {
            "intervals": asdict(self.intervals),
            "calibration": {"ece": self.calibration.ece, "bins": [asdict(b) for b in self.calibration.bins]},
            "per_class": [row.to_json() for row in self.per_class],
            "confusion": to_json(self.confusion, self.classes),
        }


def evaluate(labels: Labels, probabilities: Probabilities, classes: Sequence[str], *, seed: int = 0) -> Metrics:
    """All metrics of this module, with the random seed of the bootstrap.

    Raises:
        SalpipeError: the arrays violate the conventions, or the number of names is not the number of columns.

    >>> metrics = evaluate(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
    >>> metrics.top1, metrics.to_json()["confusion"]
    (0.5, [[1, 0], [1, 0]])
    """
    validate(labels, probabilities)
    if len(classes) != probabilities.shape[1]:
        raise SalpipeError(
            f"there are {len(classes)} class names, but probabilities of {probabilities.shape[1]} classes; "
            "evaluate shards with the classes that the run was trained on"
        )
    predicted = probabilities.argmax(axis=1)
    return Metrics(
        images=len(labels),
        classes=len(classes),
        top1=top1(labels, probabilities),
        top5=top5(labels, probabilities),
        macro_f1=macro_f1(labels, predicted),
        nll=nll(labels, probabilities),
        intervals=intervals(labels, probabilities, seed=seed),
        calibration=calibration(labels, probabilities),
        per_class=per_class(labels, probabilities, classes),
        confusion=count_pairs(labels, predicted),
    )


def validate(labels: Labels, probabilities: Probabilities) -> None:
    """Check that metrics can be computed.

    Raises:
        SalpipeError: there is no image, a label is out of range, or a row is no distribution over the classes.
    """
    if labels.ndim != 1 or probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise SalpipeError(
            f"labels of shape {labels.shape} and probabilities of shape {probabilities.shape} do not belong together; "
            "give (N,) and (N, C)"
        )
    if not len(labels):
        raise SalpipeError("there is no image to evaluate; choose a split that has labeled images")
    classes = probabilities.shape[1]
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise SalpipeError(
            f"image {wrong[0]} has label {labels[wrong[0]]}, but the probabilities are of {classes} classes; "
            "evaluate labeled images of the classes that the run was trained on"
        )
    if len(wrong := np.flatnonzero(~np.isfinite(probabilities).all(axis=1))):
        raise SalpipeError(f"image {wrong[0]} has a probability that is not finite; predict with --precision fp32")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    if len(wrong := np.flatnonzero((abs(sums - 1) > _TOLERANCE) | (probabilities < 0).any(axis=1))):
        raise SalpipeError(
            f"the values of image {wrong[0]} are no probabilities (smallest {probabilities[wrong[0]].min():g}, "
            f"sum {sums[wrong[0]]:g}); apply a softmax to the logits first"
        )


def cross_entropy(labels: Labels, logits: npt.NDArray[np.float32]) -> float:
    """Mean cross-entropy of logits (N, C) in nats, computed in float64, >= 0."""
    losses = np.empty(len(labels), np.float64)
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        exact = logits[rows].astype(np.float64)
        losses[rows] = logsumexp(exact, axis=1) - np.take_along_axis(exact, labels[rows, None], axis=1)[:, 0]
    return float(losses.mean())


def label_ranks(labels: Labels, values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Rank of the true class when the logits or probabilities (N, C) are sorted, int64 (N,) in [0, C); 0 is top 1."""
    ranks = np.empty(len(labels), np.int64)
    columns = np.arange(values.shape[1])
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        true = labels[rows, None]
        own = np.take_along_axis(values[rows], true, axis=1)
        before = (values[rows] > own) | ((values[rows] == own) & (columns < true))
        ranks[rows] = before.sum(axis=1)
    return ranks


def top1(labels: Labels, values: npt.NDArray[np.floating]) -> float:
    """Share of images whose label has the highest logit or probability, in [0, 1]."""
    return float((label_ranks(labels, values) < 1).mean())


def top5(labels: Labels, values: npt.NDArray[np.floating]) -> float | None:
    """Share of images whose label is among the five highest, in [0, 1]; None with five classes or fewer."""
    return float((label_ranks(labels, values) < TOP).mean()) if values.shape[1] > TOP else None


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur among labels or predictions, in [0, 1]."""
    hits, images, predictions = _counts(labels, predicted, int(max(labels.max(), predicted.max())) + 1)
    occurs = images + predictions > 0
    return float((2 * hits[occurs] / (images + predictions)[occurs]).mean())


def nll(labels: Labels, probabilities: Probabilities) -> float:
    """Mean negative log-likelihood of the labels in nats, >= 0."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    # a row may sum to a little more than 1
    return float(-np.log(own.clip(_SMALLEST, 1.0)).mean())


def per_class(labels: Labels, probabilities: Probabilities, classes: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Precision, recall, F1 and support of each class, with intervals of precision and recall."""
    predicted, every = probabilities.argmax(axis=1), np.arange(len(classes))
    columns = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    hits, images, predictions = _counts(labels, predicted, len(classes))
    # an interval of nothing is as undefined as its share
    ends = [np.where(count > 0, end, np.nan) for count in (predictions, images) for end in wilson(hits, count)]
    return tuple(
        ClassMetrics(name, _defined(precision), _defined(recall), _defined(f1), int(support), *map(_defined, own))
        for name, precision, recall, f1, support, own in zip(classes, *columns, np.stack(ends).T, strict=True)
    )


def lowest_f1(rows: Sequence[ClassMetrics], count: int = 3) -> list[ClassMetrics]:
    """The classes with the lowest F1 below 1, the lowest first."""
    wrong = [(row.f1, row) for row in rows if row.f1 is not None and row.f1 < 1]
    return [row for _, row in sorted(wrong, key=lambda pair: pair[0])[:count]]


def calibration(labels: Labels, probabilities: Probabilities, bins: int = BINS) -> Calibration:
    """Expected calibration error and its bins (Guo et al. 2017, arXiv:1706.04599, equation 3).

    The confidence of an image is the probability of its predicted class. Bin m of M holds the images with a confidence
    in ((m - 1) / M, m / M]; the error is the mean of `abs(accuracy - confidence)` over the bins, weighted by images.
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (label_ranks(labels, probabilities) < 1).astype(np.float64)
    where = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(where, minlength=bins)
    confidences, hits = np.bincount(where, confidence, bins), np.bincount(where, right, bins)
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), confidences, hits, strict=True)
    return Calibration(
        float(abs(hits - confidences).sum() / len(labels)),
        tuple(
            Bin(low, high, n, float(total / n) if n else None, float(correct / n) if n else None)
            for low, high, n, total, correct in rows
        ),
    )


def intervals(
    labels: Labels, probabilities: Probabilities, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Intervals:
    """Intervals of top-1 and top-5 by Wilson's score (JASA 22, 1927), of macro F1 by bootstrap percentiles.

    What varies is the images evaluated, not the training: two runs differ by more than these intervals show. Wilson's
    never have zero width, also where no image or every image is right. Each resample of the bootstrap (Efron and
    Tibshirani 1993, section 13.3) draws N of the N images with replacement; a class that it leaves out is left out of
    its macro F1. Where all resamples are alike, as with no image right or all, the ends are instead those of the F1 of
    every class's ends of precision and recall by Wilson's score, averaged over the classes that occur. That is wider
    than the interval of a mean over classes need be, and never of zero width.
    """
    generator = np.random.default_rng(seed)
    ranks, predicted = label_ranks(labels, probabilities), probabilities.argmax(axis=1)
    # Images alike in label and prediction are one kind. How often each kind is drawn is multinomial, which takes as
    # long for a million images as for a thousand.
    label, prediction, counts = count_pairs(labels, predicted).T
    right = label == prediction
    classes = probabilities.shape[1]
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = generator.multinomial(len(labels), counts / len(labels)).astype(np.float64)
        hits = np.bincount(label[right], drawn[right], classes)
        occurrences = np.bincount(label, drawn, classes) + np.bincount(prediction, drawn, classes)
        occurs = occurrences > 0
        values[i] = (2 * hits[occurs] / occurrences[occurs]).mean()
    ends: Interval = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    first, five = ([float(end) for end in wilson((ranks < k).sum(), len(ranks), level=level)] for k in (1, TOP))
    if not np.ptp(values) > 0:
        ends = _macro_f1_ends(labels, predicted, classes, level)
    return Intervals(level, resamples, first, five if classes > TOP else None, ends)


def _macro_f1_ends(labels: Labels, predicted: Labels, classes: int, level: float) -> Interval:
    """The mean F1 of the lower, and of the upper, ends of every occurring class's precision and recall."""
    hits, images, predictions = (count.astype(np.float64) for count in _counts(labels, predicted, classes))
    occurs = images + predictions > 0
    precision, recall = wilson(hits, predictions, level=level), wilson(hits, images, level=level)
    ends = []
    for p, r in zip(precision, recall, strict=True):
        ends.append(float((2 * p[occurs] * r[occurs] / np.maximum(p[occurs] + r[occurs], _SMALLEST)).mean()))
    return ends


def _counts(labels: Labels, predicted: Labels, classes: int) -> tuple[Labels, Labels, Labels]:
    """Images of each class that are predicted correctly, that have it as label, and that are predicted as it."""
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    return hits, np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
