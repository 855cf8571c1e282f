"""Verdicts: which contrasts have one, at which level, and in which word.

One primary question has its own level (that of the look where looks are planned). All other contrasts with a verdict,
arms x measures x data budgets, are one family that is adjusted together (Holm 1979). Controls compared with a reference
are described without a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saliency_pipeline.comparison.arms import CONTROL, REFERENCE
from saliency_pipeline.comparison.contrasts import Conditions, p_of, power_of
from saliency_pipeline.comparison.looks import Looks
from saliency_pipeline.comparison.rules import FINAL, MEASURES, SPEED, Primary
from saliency_pipeline.statistics.contrast import (
    BETTER,
    EQUIVALENT,
    NO_DIFFERENCE,
    UNDECIDED,
    UNDERPOWERED,
    WORSE,
    Contrast,
    verdict,
)
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import ALPHA, MINIMUM_PAIRS

FASTER, SLOWER = "faster", "slower"
WITHHELD, LEAK = "withheld", "leak"
PRIMARY, SECONDARY, UNTESTED = "primary", "secondary", "untested"


@dataclass(frozen=True)
class Tested:
    """A measure of a contrast that has a verdict, with what decides it.

    Attributes:
        result: the measure in results.json, into which the verdict is written.
        contrast: the contrast it belongs to.
        measure: `final`, `area` or `speed`.
        where: conditions of its data budget.
        is_primary: whether it is the primary question.
    """

    result: dict[str, Any]
    contrast: Mapping[str, Any]
    measure: str
    where: Conditions
    is_primary: bool

    @property
    def p(self) -> float | None:
        """Of its own test, not adjusted."""
        return p_of(self.result, self.where.own_split)

    def is_finished(self, looks: Looks) -> bool:
        """Whether a look is made and all its pairs of runs are there."""
        pairs = self.contrast["pairs"]
        return bool(looks.made) and pairs > 0 and (looks.expected is None or pairs >= looks.expected)


def decide(
    parts: Sequence[tuple[dict[str, Any], Conditions]], primary: Primary | None, looks: Looks, *, leaking: bool
) -> None:
    """Write families, adjusted p values, levels, power and verdicts into the contrasts of all data budgets.

    A test whose runs are not all finished counts in the family with p = 1 and its verdict is withheld, so that the
    size of the family does not depend on which runs have finished. Too few pairs for any verdict are not tested and do
    not count.

    Args:
        parts: per budget its part of results.json, and its conditions.
        primary: the primary question.
        looks: which are planned and made.
        leaking: whether accepted leaks forbid every verdict.
    """
    tests = [test for part, where in parts for test in _tests(part, where, primary)]
    family = [
        test
        for test in tests
        if not test.is_primary and not (test.is_finished(looks) and _underpowered(test.contrast["pairs"], test.p))
    ]
    ps = [test.p if test.is_finished(looks) and test.p is not None else 1.0 for test in family]
    adjusted = {id(test): p for test, p in zip(family, holm(ps), strict=True)}
    shared = looks.family_level(len(family)) if family and looks.made else ALPHA
    for test in tests:
        level = looks.made[-1].level if test.is_primary and looks.made else ALPHA if test.is_primary else shared
        in_family = id(test) in adjusted
        test.result["family"] = PRIMARY if test.is_primary else SECONDARY if in_family else UNTESTED
        test.result["level"] = level
        if test.p is not None:
            p = test.p if test.is_primary else adjusted.get(id(test), test.p)
            used = level if test.is_primary else level / max(1, len(family))
            detected, needed = power_of(test.result, used, test.where)
            counted = p if test.is_finished(looks) and (test.is_primary or in_family) else None
            test.result.update(p_adjusted=counted, detectable=detected, pairs_needed=needed)
        test.result["verdict"] = LEAK if leaking else _word(test, level, looks)
    single = [contrast["images"] for part, _ in parts for contrast in part["contrasts"] if contrast["images"]]
    for images, p in zip(single, holm([images["p"] for images in single]), strict=True):
        images["p_holm"] = p


def _tests(part: Mapping[str, Any], where: Conditions, primary: Primary | None) -> list[Tested]:
    """What has a verdict under one budget.

    On the shards' own split, area and speed have none: their runs share the validation images, and what is stored of
    an image is its last prediction, so that a verdict could only be about other seeds.
    """
    return [
        Tested(contrast[measure], contrast, measure, where, is_primary)
        for contrast in part["contrasts"]
        for measure in MEASURES
        if contrast["role"] in (REFERENCE, CONTROL) and (measure == FINAL or not where.own_split)
        for is_primary in [
            primary is not None
            and contrast["role"] == REFERENCE
            and (contrast["arm"], measure, part["name"]) == (primary.arm, primary.measure, primary.setting)
        ]
    ]


def _underpowered(pairs: int, p: float | None) -> bool:
    return p is None or pairs < MINIMUM_PAIRS


def _word(test: Tested, level: float, looks: Looks) -> str:
    """The verdict on a test."""
    if not test.is_finished(looks):
        return WITHHELD
    p = test.result["p_adjusted"]
    if p is None or _underpowered(test.contrast["pairs"], p):
        return UNDERPOWERED
    if test.where.own_split:
        return _word_on_split(test, p, level, looks.last)
    statistics = Contrast(**test.result["statistics"])
    # times have no equivalence, and an interim look does not conclude it: its error is not spent over the looks
    if test.measure == SPEED or not looks.last:
        statistics = replace(statistics, same=0.0)
    word = verdict(statistics, p, level=level)
    return {BETTER: SLOWER, WORSE: FASTER}.get(word, word) if test.measure == SPEED else word


def _word_on_split(test: Tested, p: float, level: float, is_last: bool) -> str:
    """The verdict by the test over images and seeds: equivalent where its 95 % interval lies within the region."""
    crossed, margin = test.result["crossed"], test.result["margin"]
    values = [each["value"] for each in test.result["differences"]]
    if crossed["mean"] == 0 and not any(values):
        return NO_DIFFERENCE
    if is_last and -margin <= crossed["low"] and crossed["high"] <= margin:
        return EQUIVALENT
    if p < level:
        return BETTER if crossed["mean"] > 0 else WORSE
    return UNDECIDED
