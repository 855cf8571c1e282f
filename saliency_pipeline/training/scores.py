"""How well a network's logits name the classes, as written for every epoch. Figures of a finished run: evaluation.

Conventions: of equal logits the lowest class counts as the higher one, as in a stable descending sort, so a constant
output scores as class 0 and not as always right. Macro F1 is the unweighted mean over the classes that occur among
the labels or the predictions; a class that occurs in neither has no F1 and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from saliency_pipeline.errors import DivergedError, SalpipeError

TOP = 5
"""The K of top-K accuracy, which is defined for more classes than K."""

# rows that are turned to float64 at a time: ImageNet's validation logits would take 400 MB at once
_ROWS = 4096


@dataclass(frozen=True)
class Scores:
    """What one pass over labeled images gave.

    Attributes:
        loss: mean cross-entropy in nats, without label smoothing or class weights, >= 0.
        top1: share of images whose label has the highest logit, in [0, 1].
        top5: share of images whose label is among the five highest logits, in [0, 1]; None with five classes or fewer,
            of which it is always 1.
        macro_f1: mean F1 of the classes that occur among labels or predictions, in [0, 1].
    """

    loss: float
    top1: float
    top5: float | None
    macro_f1: float


def score(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> Scores:
    """Cross-entropy, top-1, top-5 and macro F1 of a network's answers.

    Args:
        labels: (N,) int64, the true classes in [0, C).
        logits: (N, C) float32 or float64, any scale.

    Raises:
        SalpipeError: there is no image, or a logit is not finite.

    >>> score(np.array([0, 1]), np.array([[0.0, 0.0], [0.0, 50.0]], np.float32)).top1
    1.0
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"labels {labels.shape} and logits {logits.shape}: wanted (N,) and (N, C)")
    if not len(labels):
        raise SalpipeError("there is no image to score; choose a split that has labeled images")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise DivergedError(
            f"the logits of {bad} of {len(labels)} images are not finite; lower --lr or use --precision fp32"
        )
    ranks = label_ranks(labels, logits)
    return Scores(
        loss=float(_cross_entropies(labels, logits).mean()),
        top1=float((ranks < 1).mean()),
        top5=float((ranks < TOP).mean()) if logits.shape[1] > TOP else None,
        macro_f1=macro_f1(labels, logits.argmax(axis=1)),
    )


def label_ranks(labels: npt.NDArray[np.int64], values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """How many classes stand before the true one when logits or probabilities are sorted, equal ones by class.

    Args:
        labels: (N,) int64 in [0, C).
        values: (N, C) logits or probabilities.

    Returns:
        (N,) int64 in [0, C): 0 where the true class is the answer; top-K is right where it is below K.
    """
    ranks = np.empty(len(labels), np.int64)
    columns = np.arange(values.shape[1])
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        true = labels[rows, None]
        own = np.take_along_axis(values[rows], true, axis=1)
        before = (values[rows] > own) | ((values[rows] == own) & (columns < true))
        ranks[rows] = before.sum(axis=1)
    return ranks


def macro_f1(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur among labels or predictions.

    Args:
        labels: (N,) int64, N >= 1, the true classes.
        predicted: (N,) int64, the answers.
    """
    classes = int(max(labels.max(), predicted.max())) + 1
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    # each class's 2 TP + FP + FN
    occurrences = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    occurs = occurrences > 0
    return float((2 * hits[occurs] / occurrences[occurs]).mean())


def _cross_entropies(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    losses = np.empty(len(labels), np.float64)
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        exact = logits[rows].astype(np.float64)
        own = np.take_along_axis(exact, labels[rows, None], axis=1)[:, 0]
        losses[rows] = logsumexp(exact, axis=1) - own
    return losses
