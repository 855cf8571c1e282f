"""Rules of the analysis, chosen before the runs are trained: primary question, margins, levels, looks."""

from __future__ import annotations

from dataclasses import dataclass

FINAL, AREA, SPEED = "final", "area", "speed"
MEASURES = (FINAL, AREA, SPEED)
"""Validation top-1 after the last epoch; area under its first epochs; epochs to 95 % of the arm's own final value."""

ROPE = 0.01
"""Default half width of the region of practical equivalence, as a share of the images."""


@dataclass(frozen=True)
class Primary:
    """The primary question: a candidate compared with its reference.

    Attributes:
        arm: name of the candidate.
        measure: `final`, `area` or `speed`.
        setting: name of the data budget.
    """

    arm: str
    measure: str
    setting: str


@dataclass(frozen=True)
class Rules:
    """What the plan of a comparison fixes for its analysis.

    Attributes:
        primary: the primary question; None where there is no candidate.
        rope: half width of the region of practical equivalence, in (0, 1).
        threshold: accuracy in (0, 1] that was chosen beforehand for the epochs to reach it; None for the descriptive
            one.
        looks: planned number of analyses of the primary question.
        repeats: planned number of repeats.
        look_repeats: cumulative number of repeats at each planned look, increasing to `repeats`.
        own_split: whether all runs share the shards' own split, without folds.
    """

    primary: Primary | None
    rope: float = ROPE
    threshold: float | None = None
    looks: int = 1
    repeats: int = 1
    look_repeats: tuple[int, ...] = (1,)
    own_split: bool = False
