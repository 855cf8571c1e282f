"""Comparisons of methods on the same images, their ranking, and the ranking in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.measured import Assessed, Measured
from saliency_pipeline.assessment.metrics.metric import Column
from saliency_pipeline.assessment.results import BETTER, UNDECIDED, WORSE, Contrast, Estimate, Ranked, finite
from saliency_pipeline.assessment.wording import base_name, listed, number
from saliency_pipeline.statistics.means import means_of_images
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import ALPHA
from saliency_pipeline.statistics.signs import sign_test

REFERENCE = "center-prior"
"""The floor that a method has to beat: maps that look at neither the network nor the image."""

SHOWN = (
    "In the main column of each metric, if it has a direction, and in the headline column: every method vs. the best "
    "one, and every method vs. each floor. Holm's adjustment runs over all pairs of one column."
)

Estimates = Mapping[str, Mapping[str, Estimate]]
Values = npt.NDArray[np.float64]

# values are computed in float32
_ROUNDING = 1e-6


def compare_methods(
    measured: Measured, column: Column, rows: npt.NDArray[np.int64], estimates: Estimates
) -> tuple[Contrast, ...]:
    """Compare every method with the best one and with each floor, in one column with a direction.

    Args:
        measured: the values of the images.
        column: the column.
        rows: positions of the images that may have values.
        estimates: means by method and column.
    """
    methods = [method for method in measured.methods if not method.floor]
    floors = [method for method in measured.methods if method.floor]
    leader = best_of(methods, column, estimates)
    pairs = [(method.name, leader) for method in methods if leader and method.name != leader]
    pairs += [(method.name, floor.name) for method in methods for floor in floors]
    if not pairs:
        return ()
    values = {m.name: measured.values_of(m.name, column.name, rows) for m in measured.methods}
    differences = np.stack([_difference(values[first], values[second]) for first, second in pairs], 1)
    width = None if column.low is None or column.high is None else column.high - column.low
    means = means_of_images(differences, None if width is None else -width, width)
    sign = 1 if column.higher else -1
    wins, losses = (sign * differences > 0).sum(0), (sign * differences < 0).sum(0)
    p = [sign_test(int(won), int(lost)) for won, lost in zip(wins, losses, strict=True)]
    contrasts = []
    for i, ((first, second), own, adjusted) in enumerate(zip(pairs, p, holm(p), strict=True)):
        mean, low, high = (finite(each[i]) for each in (means.mean, means.low, means.high))
        won, lost, images = int(wins[i]), int(losses[i]), int(means.count[i])
        verdict = _verdict(adjusted, won - lost, sign * (mean or 0.0))
        ties = images - won - lost
        contrasts.append(Contrast(first, second, images, mean, low, high, won, lost, ties, own, adjusted, verdict))
    return tuple(contrasts)


def best_of(methods: Sequence[Assessed], column: Column, estimates: Estimates) -> str | None:
    """Name of the method with the best mean; None if no method has values."""
    means = {m.name: mean for m in methods if (mean := estimates[m.name][column.name].mean) is not None}
    return max(means, key=lambda name: means[name] if column.higher else -means[name]) if means else None


def rank(
    methods: Sequence[Assessed],
    headline: Column | None,
    estimates: Estimates,
    contrasts: Mapping[str, Sequence[Contrast]],
) -> tuple[Ranked, ...]:
    """Order all methods by their means in the headline column, the best first; those without values are last."""
    verdicts = {
        (column, each.method, base_name(each.against)): each for column, table in contrasts.items() for each in table
    }
    leader = best_of([m for m in methods if not m.floor], headline, estimates) if headline else None

    def key(method: Assessed) -> tuple[bool, float]:
        mean = estimates[method.name][headline.name].mean if headline else None
        return mean is None, 0.0 if mean is None else -mean if headline and headline.higher else mean

    ranked, place = [], 0
    for method in sorted(methods, key=key):
        has_place = not method.floor and not key(method)[0]
        place += has_place
        beats = {}
        for column in contrasts:
            contrast = None if method.floor else verdicts.get((column, method.name, REFERENCE))
            beats[column] = contrast.verdict == BETTER if contrast and contrast.images else None
        leading = has_place and (
            method.name == leader
            or all(
                each.verdict != WORSE
                for each in contrasts[headline.name if headline else ""]
                if (each.method, each.against) == (method.name, leader)
            )
        )
        ranked.append(Ranked(method.name, place if has_place else None, leading, beats))
    return tuple(ranked)


def verdict_of(
    ranking: Sequence[Ranked],
    headline: Column | None,
    estimates: Estimates,
    contrasts: Mapping[str, Sequence[Contrast]],
    labels: Mapping[str, str],
) -> str:
    """The ranking in one sentence: the first method, its equals, and those that do not beat `REFERENCE`.

    Args:
        ranking: all methods in order.
        headline: column of the ranking.
        estimates: means by method and column.
        contrasts: by column.
        labels: short names by canonical name.
    """
    placed = [each for each in ranking if each.place is not None]
    if headline is None or not placed:
        return "No method can be ranked: none has values of a metric with a direction."
    first = placed[0]
    own = estimates[first.method][headline.name]
    interval = "" if own.low is None or own.high is None else f" [{number(own.low)}, {number(own.high)}]"
    value = f"{headline.title} ({number(own.mean)}{interval})"
    if len(placed) == 1:
        parts = [f"{labels[first.method]} is the only method that can be ranked by {value}"]
    else:
        parts = [f"{labels[first.method]} ranks first in {value}"]
        tied = [labels[each.method] for each in placed[1:] if each.leading]
        if tied:
            parts.append(f"{listed(tied)} cannot be distinguished from it")
    parts += _beaten(placed, headline, labels)
    images = max((each.images for each in contrasts[headline.name]), default=0)
    if contrasts[headline.name] and 2 * 0.5**images * len(contrasts[headline.name]) >= ALPHA:
        parts.append(f"{images} {'image is' if images == 1 else 'images are'} too few to show any difference")
    return "; ".join(parts) + "."


def _beaten(placed: Sequence[Ranked], headline: Column, labels: Mapping[str, str]) -> list[str]:
    """Which methods beat `REFERENCE`, as at most one part of a sentence."""
    tested = [each for each in placed if each.beats.get(headline.name) is not None]
    short = [labels[each.method] for each in tested if not each.beats[headline.name]]
    if not tested:
        return []
    if not short:
        return [f"it beats {REFERENCE}" if len(placed) == 1 else f"all methods beat {REFERENCE}"]
    if len(placed) == 1:
        return [f"it does not beat {REFERENCE}"]
    if len(short) == len(placed):
        return [f"no method beats {REFERENCE}"]
    return [f"{listed(short)} {'does' if len(short) == 1 else 'do'} not beat {REFERENCE}"]


def _difference(first: Values, second: Values) -> Values:
    """Differences, 0 where they are smaller than the rounding of float32; NaN where a value is missing."""
    difference = first - second
    equal = np.abs(difference) <= _ROUNDING * np.maximum(np.abs(first), np.abs(second))
    return np.where(equal, 0.0, difference)


def _verdict(p: float, balance: int, mean: float) -> str:
    """Verdict from the adjusted p, wins less losses, and the mean in the direction of the column."""
    if p < ALPHA and balance > 0 and mean > 0:
        return BETTER
    return WORSE if p < ALPHA and balance < 0 and mean < 0 else UNDECIDED
