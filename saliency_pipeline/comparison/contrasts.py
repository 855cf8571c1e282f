"""Contrasts of two arms under one data budget: paired differences, their statistics and power.

No verdict is made here; see verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from saliency_pipeline.comparison.arms import Question
from saliency_pipeline.comparison.results import (
    ContrastResult,
    Difference,
    HeldOut,
    ImageTest,
    MeasureResult,
    Threshold,
    ThresholdPairs,
)
from saliency_pipeline.comparison.rules import AREA, FINAL, MEASURES, SPEED, Rules
from saliency_pipeline.comparison.runs import Run, shared_keys
from saliency_pipeline.statistics.contrast import evaluate
from saliency_pipeline.statistics.crossed import Crossed, crossed
from saliency_pipeline.statistics.images import mcnemar, paired_bootstrap
from saliency_pipeline.statistics.power import detectable, error_of_interval, pairs_needed
from saliency_pipeline.statistics.speed import (
    EARLY_EPOCHS,
    THRESHOLD_SHARE,
    area,
    carried,
    epochs_to,
    faster,
    own_level,
    restricted_time,
    time_differences,
)
from saliency_pipeline.statistics.superiority import superiority

Scores = npt.NDArray[np.float64]
PairOfRuns = tuple[Run, Run]

ONE_EPOCH = 1.0
"""Resolution of a time in epochs, and half width of its region of practical equivalence: accuracy is measured once per
epoch."""


@dataclass(frozen=True)
class Conditions:
    """Conditions that all contrasts of a data budget share.

    Attributes:
        ratio: validation images over the images that training was sampled from; 0 for the shards' own split.
        epochs: of the longest run; shorter curves are carried forward to it.
        threshold: accuracy whose first epoch is counted; None without runs of the reference.
        rope: half width of the region of practical equivalence of accuracies.
        own_split: true if all runs share one split.
        measures: those of `MEASURES` whose epochs all runs have validated.
    """

    ratio: float
    epochs: int
    threshold: Threshold | None
    rope: float
    own_split: bool
    measures: tuple[str, ...] = MEASURES


def conditions(by_arm: Mapping[str, Sequence[Run]], reference: str, rules: Rules) -> Conditions:
    """The conditions of a data budget, from its finished runs by the name of their arm.

    The median final accuracy of `reference` gives the descriptive threshold; there is none where some epochs were not
    validated.
    """
    runs = [run for own in by_arm.values() for run in own]
    own_split = not rules.config.folds or (bool(runs) and all(run.config.fold is None for run in runs))
    pool, validation = ([run.images[part] for run in runs] for part in ("pool", "validation"))
    epochs = max((len(run.curves["validation_top1"]) for run in runs), default=0)
    measures = _measured([carried(run.curves["validation_top1"], epochs) for run in runs])
    chosen, threshold = rules.config.threshold, None
    if SPEED not in measures:
        pass  # the first epoch above a threshold may be one that was not validated
    elif chosen is not None:
        threshold = Threshold(chosen, fixed=True)
    elif by_arm[reference]:
        median = float(np.median([run.final for run in by_arm[reference]]))
        threshold = Threshold(THRESHOLD_SHARE * median, fixed=False)
    return Conditions(
        float(np.mean(validation) / np.mean(pool)) if runs and not own_split else 0.0,
        epochs,
        threshold,
        rules.config.margin,
        own_split,
        measures,
    )


def _measured(curves: Sequence[Scores]) -> tuple[str, ...]:
    """The measures that curves with NaN for epochs that were not validated define."""
    needed = {FINAL: slice(-1, None), AREA: slice(EARLY_EPOCHS), SPEED: slice(None)}
    return tuple(name for name in MEASURES if all(np.isfinite(curve[needed[name]]).all() for curve in curves))


def score(run: Run, measure: str, where: Conditions) -> float | None:
    """A measure of a run: a share for `final` and `area`; for `speed`, epochs to 95 % of its own final accuracy.

    None if epochs that it needs were not validated.
    """
    if measure not in where.measures:
        return None
    if measure == FINAL:
        return run.final
    curve = carried(run.curves["validation_top1"], where.epochs)
    return area(curve) if measure == AREA else restricted_time(curve, own_level([curve]), where.epochs)


def to_threshold(run: Run, where: Conditions) -> int | None:
    """The first epoch at which a run reached the threshold; None where it never did."""
    return None if where.threshold is None else epochs_to(run.curves["validation_top1"], where.threshold.value)


def contrast(question: Question, by_arm: Mapping[str, Sequence[Run]], where: Conditions) -> ContrastResult:
    """Statistics of a question over its pairs of runs, before `verdicts.decide`."""
    others = {run.pair: run for run in by_arm[question.against]}
    pairs = [(others[run.pair], run) for run in by_arm[question.arm] if run.pair in others]
    reached = [[to_threshold(pair[side], where) for pair in pairs] for side in (1, 0)]
    return ContrastResult(
        **vars(question),
        pairs=len(pairs),
        final=_measure(pairs, FINAL, where),
        area=_measure(pairs, AREA, where),
        speed=_measure(pairs, SPEED, where),
        threshold=ThresholdPairs(*faster(*reached)),
        images=_per_image(*pairs[0]) if len(pairs) == 1 else None,
        test=_on_test(pairs),
    )


def p_of(result: MeasureResult, own_split: bool) -> float | None:
    """The p value that a verdict on a measure may use, or None.

    With the shards' own split only the test over images and seeds counts: the test over seeds alone does
    not generalize to other images.
    """
    source = result.crossed if own_split else result.statistics
    return None if source is None else float(source.p)


def power_of(result: MeasureResult, level: float, ratio: float) -> tuple[float, int | None]:
    """Effect that the test of a measure detects with 80 % power at its two-sided level.

    Returns:
        The smallest detectable true difference, and the pairs that would detect a difference as large as the half
        width of the region of practical equivalence (an epoch for `speed`). The pairs are None where no number up to
        10,000 suffices, and with the test over images and seeds, where more seeds alone are not enough.
    """
    source = result.crossed or result.statistics
    assert source is not None
    pairs, ratio = (source.seeds, 0.0) if isinstance(source, Crossed) else (source.pairs, ratio)
    error = error_of_interval(source.mean, source.low, source.high, pairs - 1)
    sd = error / math.sqrt(1 / pairs + ratio)
    needed = None if result.crossed else pairs_needed(sd, ratio, result.margin, alpha=level)
    return detectable(sd, pairs, ratio, alpha=level), needed


def _measure(pairs: Sequence[PairOfRuns], measure: str, where: Conditions) -> MeasureResult:
    """Differences of one measure, arm minus the arm it is compared with, and their statistics; none if not measured."""
    if measure not in where.measures:
        return MeasureResult((), ONE_EPOCH if measure == SPEED else where.rope)
    values = _differences(pairs, measure, where)
    result = MeasureResult(
        tuple(
            Difference(run.config.seed, run.config.fold, value)
            for (_, run), value in zip(pairs, values.tolist(), strict=True)
        ),
        ONE_EPOCH if measure == SPEED else where.rope,
        crossed=_crossed(pairs) if where.own_split and measure == FINAL else None,
    )
    if len(pairs) < 2:
        return result
    images = max(run.images["validation"] for _, run in pairs)
    step = ONE_EPOCH if measure == SPEED else 1 / images
    none = np.zeros_like(values)
    # the superior arm is the faster one
    sign = -1.0 if measure == SPEED else 1.0
    return replace(
        result,
        statistics=evaluate(none, values, where.ratio, rope=result.margin, step=step),
        superiority=superiority(none, sign * values),
    )


def _differences(pairs: Sequence[PairOfRuns], measure: str, where: Conditions) -> Scores:
    """Per pair the arm's score minus that of the arm it is compared with, (J,) float64."""
    if not pairs:
        return np.zeros(0)
    if measure == SPEED:
        first, second = ([pair[side].curves["validation_top1"] for pair in pairs] for side in (0, 1))
        return time_differences(first, second, where.epochs)
    scores = np.array([[score(run, measure, where) for run in pair] for pair in pairs], np.float64)
    return np.asarray(scores[:, 1] - scores[:, 0], np.float64)


def _crossed(pairs: Sequence[PairOfRuns]) -> Crossed | None:
    """Images x seeds on the predictions of the last epoch; None without them, or for fewer than two of either."""
    kept = [run.validation for pair in pairs for run in pair if run.validation]
    images = {tuple(sorted(own.keys)) for own in kept}
    if len(pairs) < 2 or len(kept) < 2 * len(pairs) or len(images) > 1 or len(kept[0].keys) < 2:
        return None
    right = np.array([own.right[np.argsort(np.array(own.keys, object), kind="stable")] for own in kept])
    return crossed(right[::2], right[1::2])


def _per_image(first: Run, second: Run) -> ImageTest | None:
    """A single pair, image by image: these two networks on images of this kind, not other training runs."""
    if first.validation is None or second.validation is None:
        return None
    a, b = shared_keys(first.validation, second.validation)
    if not len(a):
        return None
    right, other = first.validation.right[a], second.validation.right[b]
    only_first, only_second, p = mcnemar(right, other)
    interval = paired_bootstrap(right.astype(np.float64), other.astype(np.float64))
    return ImageTest(len(a), only_first, only_second, p, p, *interval)


def _on_test(pairs: Sequence[PairOfRuns]) -> HeldOut | None:
    """The held-out test images: difference in how often they are classified correctly, averaged over pairs."""
    both = [(first.test, second.test) for first, second in pairs if first.test and second.test]
    if not both or len({own.keys for pair in both for own in pair}) != 1:
        return None
    first, second = (np.mean([pair[side].right for pair in both], axis=0) for side in (0, 1))
    return HeldOut(len(first), *paired_bootstrap(first, second))
