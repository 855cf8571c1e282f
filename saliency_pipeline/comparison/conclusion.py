"""The verdict in words: one sentence that says no more than the figures do, and a line for every candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saliency_pipeline.comparison.arms import CANDIDATE, CONTROL, REFERENCE
from saliency_pipeline.statistics.contrast import (
    ALPHA,
    BETTER,
    EQUIVALENT,
    NO_DIFFERENCE,
    UNDECIDED,
    UNDERPOWERED,
    WORSE,
)
from saliency_pipeline.statistics.power import POWER

Told = Mapping[str, Any]
_MEASURED = {"final": "ended", "area": "stood over the first epochs"}


def conclude(results: Told) -> dict[str, Any]:
    """The verdict on the first candidate under the last budget, and details on all.

    Args:
        results: everything else of `results.json`.

    Returns:
        `sentence`: str; `word`: the verdict on final accuracy against the reference; `details`: a str for every
        candidate, budget and measure.
    """
    arms = {
        kind: [arm["name"] for arm in results["arms"] if arm["kind"] == kind]
        for kind in (REFERENCE, CANDIDATE, CONTROL)
    }
    asked = arms[CANDIDATE] or arms[CONTROL]
    reference, settings = arms[REFERENCE][0], results["settings"]
    details = [
        _detail(setting, arm, reference, measure, len(settings) > 1)
        for setting in settings
        for arm in asked
        for measure in _MEASURED
        if find(setting, arm, reference)
    ]
    contrast = find(settings[-1], asked[0], reference) if settings else None
    if contrast is None:
        return {
            "word": UNDERPOWERED,
            "sentence": "No pair of runs is finished yet: nothing can be said.",
            "details": details,
        }
    where = f" ({settings[-1]['name']})" if len(settings) > 1 else ""
    sentence = _sentence(settings[-1], contrast, arms[CONTROL])
    return {"word": contrast["final"]["verdict"], "sentence": sentence + where + ".", "details": details}


def find(setting: Told, arm: str, against: str) -> Any:
    """A contrast of a budget, or None."""
    found = (c for c in setting["contrasts"] if (c["arm"], c["against"]) == (arm, against))
    return next(found, None)


def points(value: float) -> str:
    """A difference of shares in points, with its sign.

    >>> points(0.0123), points(-0.004), points(0.0)
    ('+1.2', '-0.4', '0.0')
    """
    return f"{100 * value:+.1f}" if round(1000 * value) else "0.0"


def p_value(p: float) -> str:
    """A p value in words; none is 0, and less than 0.001 would be said too exactly by any number.

    >>> p_value(0.0321), p_value(1e-9), p_value(1.0)
    ('p = 0.032', 'p < 0.001', 'p = 1')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _sentence(setting: Told, contrast: Told, controls: list[str]) -> str:
    """What is true of the first candidate, the strongest thing first."""
    arm, against, final = contrast["arm"], contrast["against"], contrast["final"]
    told, word = final["statistics"], final["verdict"]
    if told is None:
        return _single(contrast)
    amount = f"{points(told['mean'])} points (95 % interval {points(told['low'])} to {points(told['high'])})"
    speed = _speed(contrast)
    if word == UNDERPOWERED:
        return f"Underpowered: {contrast['pairs']} pairs of runs allow no verdict; {arm} ended {amount} from {against}"
    if word == NO_DIFFERENCE:
        return f"No difference: {arm} and {against} ended exactly alike in all {contrast['pairs']} pairs"
    if word == WORSE:
        return f"{arm} ended worse than {against}, by {amount}{speed}"
    if word == EQUIVALENT:
        return (
            f"{arm} ended as {against} did, for all practical purposes: the difference is within a point with "
            f"{told['same']:.0%} probability ({amount}){speed}"
        )
    if word == UNDECIDED:
        return (
            f"No effect was shown: {arm} ended {amount} from {against}, {p_value(final['p_holm'])} over all contrasts; "
            f"a difference below {points(final['detectable']).lstrip('+')} points would likely have been missed{speed}"
        )
    beaten = [c for c in controls if (held := find(setting, arm, c)) and held["final"]["verdict"] == BETTER]
    missed = [c for c in controls if c not in beaten]
    if not controls:
        rest = "; without a control arm it may be the extra branch that helped, not the maps"
    elif missed:
        rest = f"; but not shown to be better than {_listed(missed)}, so it may not be where the maps point that helped"
    else:
        rest = f", and better than {_listed(controls)}: where the maps point did help"
    return f"{arm} ended better than {against}, by {amount}{rest}{speed}"


def _speed(contrast: Told) -> str:
    """Whether it converged faster, by the area under the first epochs."""
    told, word = contrast["area"]["statistics"], contrast["area"]["verdict"]
    amount = f"area under the first epochs {points(told['mean'])} points"
    if word == BETTER:
        return f"; it converged faster ({amount})"
    if word == WORSE:
        return f"; it converged more slowly ({amount})"
    return f"; it was not shown to converge faster ({amount})"


def _single(contrast: Told) -> str:
    """One pair: the two networks at hand, image by image."""
    arm, against, told = contrast["arm"], contrast["against"], contrast["images"]
    difference = contrast["final"]["differences"]
    if told is None:
        amount = points(difference[0]["value"]) if difference else "an unknown number of"
        return f"Underpowered: a single pair of runs allows no verdict; {arm} ended {amount} points from {against}"
    amount = f"{points(told['mean'])} points (95 % interval {points(told['low'])} to {points(told['high'])})"
    surer = "differ on these images" if told["p_holm"] < ALPHA else "are not shown to differ on these images"
    return (
        f"Underpowered: a single pair of runs says nothing of training again; the two networks {surer}: {arm} is right "
        f"{amount} more often than {against} (McNemar {p_value(told['p_holm'])})"
    )


def _detail(setting: Told, arm: str, reference: str, measure: str, several: bool) -> str:
    contrast = find(setting, arm, reference)
    told, word = contrast[measure]["statistics"], contrast[measure]["verdict"]
    where = f"{setting['name']}: " if several else ""
    if told is None:
        return f"{where}{arm} against {reference}: {contrast['pairs']} pair of runs, {word}"
    needed = contrast[measure]["pairs_needed"]
    more = "no number of pairs here" if needed is None else f"{needed} pairs"
    return (
        f"{where}{arm} {_MEASURED[measure]} {points(told['mean'])} points from {reference}: {word} "
        f"({p_value(contrast[measure]['p_holm'])} after Holm, {contrast['pairs']} pairs; {more} would find "
        f"one point with {POWER:.0%} power)"
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
