"""Verdicts: which contrasts have one, at which level, and in which word.

One primary question has its own level (that of the look where looks are planned). All other contrasts with a verdict,
arms x measures x data budgets, are one family that is adjusted together (Holm 1979). Controls compared with a reference
are described without a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from saliency_pipeline.comparison.arms import CONTROL, REFERENCE
from saliency_pipeline.comparison.contrasts import p_of, power_of
from saliency_pipeline.comparison.looks import Looks
from saliency_pipeline.comparison.results import ContrastResult, MeasureResult, SettingResult
from saliency_pipeline.comparison.rules import FINAL, MEASURES, SPEED, Primary
from saliency_pipeline.statistics.contrast import (
    BETTER,
    EQUIVALENT,
    NO_DIFFERENCE,
    UNDECIDED,
    UNDERPOWERED,
    WORSE,
    verdict,
)
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import ALPHA, MINIMUM_PAIRS

FASTER, SLOWER = "faster", "slower"
WITHHELD, LEAK = "withheld", "leak"
PRIMARY, SECONDARY, UNTESTED = "primary", "secondary", "untested"


@dataclass(frozen=True)
class Tested:
    """A measure of a contrast that gets a verdict, under the data budget `part`."""

    contrast: ContrastResult
    measure: str
    part: SettingResult
    is_primary: bool

    @property
    def result(self) -> MeasureResult:
        """The measure, without a verdict."""
        return self.contrast[self.measure]

    @property
    def p(self) -> float | None:
        """Its p value, not adjusted."""
        return p_of(self.result, self.part.own_split)

    def is_finished(self, looks: Looks) -> bool:
        """True if a look is made and all its pairs of runs are finished."""
        pairs = self.contrast.pairs
        return bool(looks.made) and pairs > 0 and (looks.expected is None or pairs >= looks.expected)


def decide(
    parts: Sequence[SettingResult], primary: Primary | None, looks: Looks, *, leaking: bool
) -> tuple[SettingResult, ...]:
    """The data budgets with families, adjusted p values, levels, power and verdicts of all contrasts.

    A test whose runs are not all finished counts in the family with p = 1 and its verdict is withheld, so that the
    size of the family does not depend on which runs have finished. Too few pairs for any verdict are not tested and do
    not count. `leaking` is true if accepted leaks forbid every verdict.
    """
    tests = [test for part in parts for test in _tests(part, primary)]
    family = [
        test
        for test in tests
        if not test.is_primary and not (test.is_finished(looks) and _underpowered(test.contrast.pairs, test.p))
    ]
    ps = [test.p if test.is_finished(looks) and test.p is not None else 1.0 for test in family]
    adjusted = {id(test): p for test, p in zip(family, holm(ps), strict=True)}
    shared = looks.family_level(len(family)) if family and looks.made else ALPHA
    decided: dict[int, dict[str, Any]] = {}
    for test in tests:
        level = looks.made[-1].level if test.is_primary and looks.made else ALPHA if test.is_primary else shared
        in_family = id(test) in adjusted
        role = PRIMARY if test.is_primary else SECONDARY if in_family else UNTESTED
        result = replace(test.result, family=role, level=level)
        if test.p is not None:
            p = test.p if test.is_primary else adjusted.get(id(test), test.p)
            used = level if test.is_primary else level / max(1, len(family))
            detected, needed = power_of(result, used, test.part.ratio)
            counted = p if test.is_finished(looks) and (test.is_primary or in_family) else None
            result = replace(result, p_adjusted=counted, detectable=detected, pairs_needed=needed)
        result = replace(result, verdict=LEAK if leaking else _word(test, result, level, looks))
        decided.setdefault(id(test.contrast), {})[test.measure] = result
    single = [contrast for part in parts for contrast in part.contrasts if contrast.images]
    ps = holm([contrast.images.p for contrast in single if contrast.images])
    by_image = {id(contrast): p for contrast, p in zip(single, ps, strict=True)}

    def complete(contrast: ContrastResult) -> ContrastResult:
        images = contrast.images and replace(contrast.images, p_holm=by_image[id(contrast)])
        return replace(contrast, images=images, **decided.get(id(contrast), {}))

    return tuple(replace(part, contrasts=tuple(map(complete, part.contrasts))) for part in parts)


def _tests(part: SettingResult, primary: Primary | None) -> list[Tested]:
    """The measures with a verdict under one budget.

    On the shards' own split, area and speed have none: their runs share the validation images, and what is stored of
    an image is its last prediction, so that a verdict could only be about other seeds. Nor have measures of epochs that
    were not validated.
    """
    return [
        Tested(contrast, measure, part, is_primary)
        for contrast in part.contrasts
        for measure in MEASURES
        if contrast.role in (REFERENCE, CONTROL) and (measure == FINAL or not part.own_split)
        if contrast[measure].differences or not contrast.pairs
        for is_primary in [
            primary is not None
            and contrast.role == REFERENCE
            and (contrast.arm, measure, part.name) == (primary.arm, primary.measure, primary.setting)
        ]
    ]


def _underpowered(pairs: int, p: float | None) -> bool:
    return p is None or pairs < MINIMUM_PAIRS


def _word(test: Tested, result: MeasureResult, level: float, looks: Looks) -> str:
    """The verdict on a test, from its result with p and level."""
    if not test.is_finished(looks):
        return WITHHELD
    p = result.p_adjusted
    if p is None or _underpowered(test.contrast.pairs, p):
        return UNDERPOWERED
    if test.part.own_split:
        return _word_on_split(result, p, level, looks.last)
    statistics = result.statistics
    assert statistics is not None
    # times have no equivalence, and an interim look does not conclude it: its error is not spent over the looks
    if test.measure == SPEED or not looks.last:
        statistics = replace(statistics, same=0.0)
    word = verdict(statistics, p, level=level)
    return {BETTER: SLOWER, WORSE: FASTER}.get(word, word) if test.measure == SPEED else word


def _word_on_split(result: MeasureResult, p: float, level: float, is_last: bool) -> str:
    """The verdict by the test over images and seeds: equivalent where its 95 % interval lies within the region."""
    crossed, margin = result.crossed, result.margin
    assert crossed is not None
    if crossed.mean == 0 and not any(each.value for each in result.differences):
        return NO_DIFFERENCE
    if is_last and -margin <= crossed.low and crossed.high <= margin:
        return EQUIVALENT
    if p < level:
        return BETTER if crossed.mean > 0 else WORSE
    return UNDECIDED
