"""Rules of the analysis, chosen before the runs are trained: primary question, margins, levels, looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saliency_pipeline.comparison.arms import CANDIDATE, Arm
from saliency_pipeline.errors import OptionError

FINAL, AREA, SPEED = "final", "area", "speed"
MEASURES = (FINAL, AREA, SPEED)
"""Validation top-1 after the last epoch; area under its first epochs; epochs to 95 % of its own final accuracy."""

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


def choose_primary(text: str | None, arms: Sequence[Arm], settings: Sequence[str]) -> Primary | None:
    """The primary question that `--primary ARM[:MEASURE]` names, under the last data budget.

    Args:
        text: the option; None for the final accuracy of the first candidate.
        arms: of the comparison.
        settings: names of the data budgets.

    Returns:
        None where there is no candidate.

    Raises:
        OptionError: no such candidate or measure.
    """
    candidates = [arm.name for arm in arms if arm.kind == CANDIDATE]
    if text is None:
        return Primary(candidates[0], FINAL, settings[-1]) if candidates else None
    arm, _, measure = text.partition(":")
    if arm not in candidates:
        raise OptionError(f"--primary {text}: {arm or 'no name'} is no candidate; choose from {', '.join(candidates)}")
    measure = measure or FINAL
    if measure not in MEASURES:
        raise OptionError(f"--primary {text}: no measure '{measure}'; choose from {', '.join(MEASURES)}")
    return Primary(arm, measure, settings[-1])


def cumulative_repeats(repeats: int, looks: int) -> tuple[int, ...]:
    """How many repeats each look analyzes, the earlier ones included.

    Args:
        repeats: planned repeats, at least `looks`.
        looks: planned looks, at least 1.

    >>> cumulative_repeats(10, 1), cumulative_repeats(5, 2), cumulative_repeats(7, 3)
    ((10,), (3, 5), (3, 5, 7))
    """
    return tuple(-(-look * repeats // looks) for look in range(1, looks + 1))


def check_rules(
    *,
    rope: float,
    threshold: float | None,
    looks: int,
    repeats: int,
    folds: int,
    lrs: Sequence[float],
    arms: Sequence[Arm],
) -> None:
    """Refuse rules that cannot be.

    Raises:
        OptionError: naming the option.
    """
    # written so that NaN fails as well
    if not 0 < rope < 0.5:
        raise OptionError(f"--rope {100 * rope:g}: use points above 0 and below 50")
    if threshold is not None and not 0 < threshold <= 1:
        raise OptionError(f"--threshold {threshold:g}: use an accuracy above 0 and up to 1")
    if looks < 1:
        raise OptionError(f"--looks {looks}: use 1 or more")
    if looks > repeats:
        raise OptionError(
            f"--looks {looks}: there are {repeats} repeats, and every look needs a new one; use --repeats {looks}"
        )
    if looks > 1 and not folds:
        raise OptionError(f"--looks {looks}: needs folds, not the shards' own split; use --folds 5 or --looks 1")
    rates = [f"{lr:g}" for lr in lrs]
    if len(set(rates)) < len(rates):
        raise OptionError(f"--lr {','.join(rates)}: names a rate twice")
    if own := [arm.name for arm in arms if "lr" in arm.options and lrs]:
        raise OptionError(f"arm {own[0]}: has its own lr, and --lr names several; leave one of them out")
