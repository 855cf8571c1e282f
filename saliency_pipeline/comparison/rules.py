"""Rules of the analysis, chosen before the runs are trained: primary question, margins, levels, looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from saliency_pipeline.comparison.arms import CANDIDATE, Arm
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.errors import OptionError

FINAL, AREA, SPEED = "final", "area", "speed"
MEASURES = (FINAL, AREA, SPEED)
"""Validation top-1 after the last epoch; area under its first epochs; epochs to 95 % of its own final accuracy."""


@dataclass(frozen=True)
class Primary:
    """The primary question: a candidate compared with its reference in one of the `MEASURES` under a data budget."""

    arm: str
    measure: str
    setting: str


@dataclass(frozen=True)
class Rules:
    """Rules of an analysis.

    Attributes:
        primary: the primary question; None where there is no candidate.
        config: margins, threshold, folds, repeats and looks.
        planned: false for runs that no plan fixed beforehand, which all count in a single look.
    """

    primary: Primary | None
    config: ComparisonConfig = field(default_factory=ComparisonConfig)
    planned: bool = True

    @property
    def look_repeats(self) -> tuple[int, ...]:
        """Cumulative number of repeats at each planned look; empty without a plan."""
        return self.config.look_repeats if self.planned else ()


def choose_primary(text: str | None, arms: Sequence[Arm], settings: Sequence[str]) -> Primary | None:
    """The primary question that `--primary ARM[:MEASURE]` names, under the last data budget.

    By default it is the final accuracy of the first candidate; None where there is none.

    Raises:
        OptionError: no such candidate or measure.
    """
    candidates = [arm.name for arm in arms if arm.kind == CANDIDATE]
    if text is None:
        return Primary(candidates[0], FINAL, settings[-1]) if candidates else None
    # the name of an arm of finished runs may have colons, in that of a method
    arm, sign, measure = text.rpartition(":")
    if text in candidates or not sign:
        arm, measure = text, ""
    if arm not in candidates:
        raise OptionError(
            f"--primary {text}: {arm or 'no name'} is not a candidate; choose from {', '.join(candidates)}"
        )
    measure = measure or FINAL
    if measure not in MEASURES:
        raise OptionError(f"--primary {text}: no measure '{measure}'; choose from {', '.join(MEASURES)}")
    return Primary(arm, measure, settings[-1])
