"""How good a trained network's answers are: accuracy, F1, likelihood, calibration, and how sure of that one can be.

Conventions
    labels (N,) int64 in [0, C); probabilities (N, C) float32 or float64, each row summing to 1; N >= 1. `validate`
    refuses anything else; the metrics themselves take it for granted.
    The answer is the class of the highest probability, of equal ones the lowest class. A label is in the top K where
    fewer than K classes come before it in that order.
    Precision without an answer of the class, recall without an image of it, and F1 with neither are not defined:
    None in `per_class`, and left out of `macro_f1`. Top 5 of five classes or fewer is always right: None in `evaluate`.
    Probabilities count as at least 1.2e-38, the smallest normal float32, so that the likelihood stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.confusion import count_pairs, to_json
from saliency_pipeline.statistics.power import LEVEL
from saliency_pipeline.statistics.shares import wilson
from saliency_pipeline.training.scores import TOP, label_ranks
from saliency_pipeline.training.scores import macro_f1 as macro_f1_of

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating]

BINS = 15
RESAMPLES = 2000

_TOLERANCE = 1e-3
_SMALLEST = float(np.finfo(np.float32).tiny)


def validate(labels: Labels, probabilities: Probabilities) -> None:
    """Refuse what the metrics cannot be computed from.

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


def top1(labels: Labels, probabilities: Probabilities) -> float:
    """Share of images whose label has the highest probability, in [0, 1]."""
    return float((label_ranks(labels, probabilities) < 1).mean())


def top5(labels: Labels, probabilities: Probabilities) -> float:
    """Share of images whose label is among the five highest, in [0, 1]; 1 with five classes or fewer."""
    return float((label_ranks(labels, probabilities) < TOP).mean())


def macro_f1(labels: Labels, probabilities: Probabilities) -> float:
    """Mean F1 of the classes that occur among labels or answers, in [0, 1]."""
    return macro_f1_of(labels, probabilities.argmax(axis=1))


def nll(labels: Labels, probabilities: Probabilities) -> float:
    """Mean negative log-likelihood of the labels in nats, >= 0."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    # a row may sum to a little more than 1
    return float(-np.log(own.clip(_SMALLEST, 1.0)).mean())


def per_class(labels: Labels, probabilities: Probabilities, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class its name, precision, recall, F1 (in [0, 1] or None) and support, the number of its images.

    Also `precision_low`, `precision_high`, `recall_low` and `recall_high`, the ends of Wilson's intervals at `LEVEL`;
    None where precision or recall is.
    """
    predicted, every = probabilities.argmax(axis=1), np.arange(len(classes))
    columns = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    hits, images, answers = _counts(labels, predicted, len(classes))
    ends = np.stack([*wilson(hits, answers), *wilson(hits, images)])
    return [
        {
            "class": name,
            "precision": _defined(precision),
            "recall": _defined(recall),
            "f1": _defined(f1),
            "support": int(support),
            "precision_low": _defined(own[0]) if answered else None,
            "precision_high": _defined(own[1]) if answered else None,
            "recall_low": _defined(own[2]) if support else None,
            "recall_high": _defined(own[3]) if support else None,
        }
        for name, precision, recall, f1, support, answered, own in zip(
            classes, *columns, answers.tolist(), ends.T, strict=True
        )
    ]


def calibration(labels: Labels, probabilities: Probabilities, bins: int = BINS) -> dict[str, Any]:
    """Expected calibration error and the bins it is made of (Guo et al. 2017, arXiv:1706.04599, equation 3).

    The confidence of an image is the probability of its answer. Bin m of M holds the images with a confidence in
    ((m - 1) / M, m / M]; the error is the mean of |accuracy - confidence| over the bins, weighted by their images.

    Returns:
        `ece` in [0, 1] and `bins`, each with `low`, `high`, `count`, mean `confidence` and `accuracy`, both None
        where the bin is empty.
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (label_ranks(labels, probabilities) < 1).astype(np.float64)
    where = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(where, minlength=bins)
    confidences = np.bincount(where, confidence, bins)
    hits = np.bincount(where, right, bins)
    return {
        "ece": float(abs(hits - confidences).sum() / len(labels)),
        "bins": [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "count": int(counts[i]),
                "confidence": float(confidences[i] / counts[i]) if counts[i] else None,
                "accuracy": float(hits[i] / counts[i]) if counts[i] else None,
            }
            for i in range(bins)
        ],
    }


def intervals(
    labels: Labels, probabilities: Probabilities, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> dict[str, list[float] | None]:
    """Intervals of top-1 and top-5 by Wilson's score (JASA 22, 1927), of macro F1 by bootstrap percentiles.

    What varies is the images evaluated, not the training: two runs differ by more than these intervals say. Wilson's
    are none of zero width, also where no image or every image is right. Each resample of the bootstrap (Efron and
    Tibshirani 1993, section 13.3) draws N of the N images with replacement; a class that it leaves out is left out of
    its macro F1. Where all resamples are alike, as with no image right or all, they say nothing of the interval: its
    ends are then those of the F1 of every class's ends of precision and recall by Wilson's score, averaged over the
    classes that occur. That is wider than the interval of a mean over classes need be, and never of zero width.

    Args:
        labels: (N,) int64.
        probabilities: (N, C).
        seed: of the draws.
        resamples: how many.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper end of `top1`, `top5` and `macro_f1`; None for top-5 of five classes or fewer.
    """
    generator = np.random.default_rng(seed)
    ranks, answers = label_ranks(labels, probabilities), probabilities.argmax(axis=1)
    # Images alike in label and answer are one kind. How often each kind is drawn is multinomial, which takes as long
    # for a million images as for a thousand.
    label, answer, counts = count_pairs(labels, answers).T
    right = label == answer
    classes = probabilities.shape[1]
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = generator.multinomial(len(labels), counts / len(labels)).astype(np.float64)
        hits = np.bincount(label[right], drawn[right], classes)
        occurrences = np.bincount(label, drawn, classes) + np.bincount(answer, drawn, classes)
        occurs = occurrences > 0
        values[i] = (2 * hits[occurs] / occurrences[occurs]).mean()
    ends: list[float] = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {
        "top1": _ends((ranks < 1).sum(), len(ranks), level),
        "top5": _ends((ranks < TOP).sum(), len(ranks), level) if classes > TOP else None,
        "macro_f1": ends if np.ptp(values) > 0 else _macro_f1_ends(labels, answers, classes, level),
    }


def _ends(hits: npt.ArrayLike, count: int, level: float) -> list[float]:
    return [float(end) for end in wilson(hits, count, level=level)]


def _macro_f1_ends(labels: Labels, answers: Labels, classes: int, level: float) -> list[float]:
    """The mean F1 of the lower, and of the upper, ends of every occurring class's precision and recall."""
    hits, images, answered = (count.astype(np.float64) for count in _counts(labels, answers, classes))
    occurs = images + answered > 0
    precision, recall = wilson(hits, answered, level=level), wilson(hits, images, level=level)
    ends = []
    for p, r in zip(precision, recall, strict=True):
        ends.append(float((2 * p[occurs] * r[occurs] / np.maximum(p[occurs] + r[occurs], _SMALLEST)).mean()))
    return ends


def _counts(labels: Labels, answers: Labels, classes: int) -> tuple[Labels, Labels, Labels]:
    """For each class how many images were answered rightly, have it as label, and were answered with it."""
    hits = np.bincount(labels[labels == answers], minlength=classes)
    return hits, np.bincount(labels, minlength=classes), np.bincount(answers, minlength=classes)


def evaluate(labels: Labels, probabilities: Probabilities, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """All metrics of this module as plain numbers, strings, lists and dicts, ready for JSON.

    Args:
        labels: (N,) int64 in [0, C).
        probabilities: (N, C) float32 or float64, rows summing to 1.
        classes: the C class names.
        seed: of the bootstrap.

    Raises:
        SalpipeError: the arrays are not what `validate` asks for, or the names are not as many as the columns.

    >>> found = evaluate(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
    >>> found["top1"], found["confusion"]
    (0.5, [[1, 0], [1, 0]])
    """
    validate(labels, probabilities)
    if len(classes) != probabilities.shape[1]:
        raise SalpipeError(
            f"there are {len(classes)} class names, but probabilities of {probabilities.shape[1]} classes; "
            "evaluate shards with the classes that the run was trained on"
        )
    return {
        "images": len(labels),
        "classes": len(classes),
        "top1": top1(labels, probabilities),
        "top5": top5(labels, probabilities) if len(classes) > TOP else None,
        "macro_f1": macro_f1(labels, probabilities),
        "nll": nll(labels, probabilities),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, **intervals(labels, probabilities, seed=seed)},
        "calibration": calibration(labels, probabilities),
        "per_class": per_class(labels, probabilities, classes),
        "confusion": to_json(count_pairs(labels, probabilities.argmax(axis=1)), len(classes)),
    }


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
