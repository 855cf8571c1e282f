"""Single images and classes behind a comparison: the confusion of one run, and images on which two arms disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from saliency_pipeline.comparison.arms import Question
from saliency_pipeline.comparison.results import Disagreement, RunConfusion
from saliency_pipeline.comparison.runs import Predictions, Run, shared_keys
from saliency_pipeline.statistics.confusion import count_pairs, to_json

_EXAMPLES = 12


def confusion(by_arm: Mapping[str, Sequence[Run]], shown: Question, classes: Sequence[str]) -> RunConfusion | None:
    """The confusion matrix of the best run of the arm in question, or of its reference where it kept no predictions."""
    runs = _with_predictions(by_arm, shown.arm) or _with_predictions(by_arm, shown.against)
    if not runs:
        return None
    best, own = max(runs, key=lambda each: each[0].final)
    index = {name: number for number, name in enumerate(classes)}
    labels, predictions = (np.array([index[name] for name in names], np.int64) for names in (own.labels, own.predicted))
    matrix = to_json(count_pairs(labels, predictions), len(classes))
    return RunConfusion(best.arm, best.config.seed, best.config.fold, matrix)


def disagreements(by_arm: Mapping[str, Sequence[Run]], shown: Question) -> tuple[Disagreement, ...]:
    """Images that the first pair of two arms classifies differently, gains and losses in turn, classes mixed."""
    others = {run.pair: own for run, own in _with_predictions(by_arm, shown.against)}
    pairs = (
        (others[run.pair], own, run.pair) for run, own in _with_predictions(by_arm, shown.arm) if run.pair in others
    )
    if (pair := next(pairs, None)) is None:
        return ()
    first, second, (seed, fold) = pair
    a, b = shared_keys(first, second)
    gained: list[Disagreement] = []
    lost: list[Disagreement] = []
    for i, j, own, other in zip(a.tolist(), b.tolist(), first.right[a], second.right[b], strict=True):
        if own != other:
            image = first.keys[i], first.labels[i], first.predicted[i], second.predicted[j]
            (gained if other else lost).append(Disagreement(shown.against, shown.arm, seed, fold, *image))
    # stored order would show one class first
    for examples in (gained, lost):
        examples.sort(key=lambda example: hashlib.sha256(example.key.encode("utf-8", "replace")).digest())
    turns = [example for both in zip(gained, lost, strict=False) for example in both]
    rest = gained[len(lost) :] + lost[len(gained) :]
    return tuple((turns + rest)[:_EXAMPLES])


def _with_predictions(by_arm: Mapping[str, Sequence[Run]], arm: str) -> list[tuple[Run, Predictions]]:
    return [(run, run.validation) for run in by_arm.get(arm, ()) if run.validation]
