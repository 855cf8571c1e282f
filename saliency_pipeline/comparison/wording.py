"""Numbers as the page of a comparison writes them, with typographic minus signs and units left to the column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saliency_pipeline.assessment.wording import number
from saliency_pipeline.figures.pages import NONE


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign.

    >>> points(0.0123), points(-0.004), points(-0.0001), points(None)
    ('+1.2', '−0.4', '0.0', '–')
    """
    return NONE if value is None else _signed(100 * value, 1)


def difference(value: float | None, measure: str) -> str:
    """A difference of a measure with its sign: of accuracies in points, of times in epochs.

    >>> difference(-0.02, "final"), difference(-0.25, "speed")
    ('−2.0', '−0.25')
    """
    return NONE if value is None else _signed(value, 2) if measure == "speed" else points(value)


def unsigned(value: float | None, measure: str) -> str:
    """The size of a difference of a measure, without a sign.

    >>> unsigned(0.021, "final"), unsigned(0.5, "speed")
    ('2.1', '0.50')
    """
    return NONE if value is None else difference(abs(value), measure).lstrip("+")


def share(value: float | None) -> str:
    """A share in percent.

    >>> share(0.1234), share(None)
    ('12.3 %', '–')
    """
    return NONE if value is None else f"{percent(value)} %"


def percent(value: float) -> str:
    """A share in percent, without the sign.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * value:.1f}"


def whole_percent(value: float | None) -> str:
    """A share of any sign in whole percent, without the unit.

    >>> whole_percent(0.313), whole_percent(-0.02), whole_percent(1.2), whole_percent(None)
    ('31', '−2', '120', '–')
    """
    return NONE if value is None else _signed(100 * value, 0).lstrip("+")


def whole_share(value: float | None) -> str:
    """A probability in whole percent; only a certain one is 0 or 100.

    >>> whole_share(0.123), whole_share(0.0001), whole_share(0.9999), whole_share(1.0)
    ('12', '<1', '>99', '100')
    """
    if value is None:
        return NONE
    return "<1" if 0 < value < 0.005 else ">99" if 0.995 < value < 1 else f"{100 * value:.0f}"


def level(value: float | None) -> str:
    """A level of a test with at most five decimals.

    >>> level(0.05), level(0.0244), level(1e-7)
    ('0.05', '0.0244', '< 0.00001')
    """
    return NONE if value is None else "< 0.00001" if value < 0.00001 else f"{value:.5f}".rstrip("0")


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours.

    >>> duration(12.34), duration(600), duration(9000)
    ('12.3 s', '10.0 min', '2.5 h')
    """
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def distance(value: float | None) -> str:
    """A relative distance with two decimals, or `< 0.0001` for rounding errors.

    >>> distance(0.0), distance(3e-7), distance(0.853)
    ('0', '< 0.0001', '0.85')
    """
    if not value:
        return NONE if value is None else "0"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def verdict(word: str | None, measure: str) -> str:
    """A verdict in words; an area is higher or lower, which is not better or worse.

    >>> verdict("leak", "final"), verdict("better", "final"), verdict("better", "area"), verdict(None, "final")
    ('none: leak', 'better', 'higher', '–')
    """
    if measure == "area":
        word = {"better": "higher", "worse": "lower"}.get(word or "", word)
    return NONE if word is None else "none: leak" if word == "leak" else word


def tone(word: str | None) -> str:
    """Class of the style of a verdict.

    >>> tone("faster"), tone("slower"), tone("undecided")
    ('better', 'worse', 'open')
    """
    return {"better": "better", "faster": "better", "worse": "worse", "slower": "worse"}.get(word or "", "open")


def span(values: list[int]) -> str:
    """Smallest and largest of some counts.

    >>> span([48, 48]), span([47, 48])
    ('48', '47 to 48')
    """
    return f"{values[0]}" if values[0] == values[1] else f"{values[0]} to {values[1]}"


def chosen(counts: Mapping[str, int], rate: float) -> int:
    """The number of times that a learning rate was chosen; rates are keys as texts.

    >>> chosen({"0.0001": 3}, 1e-4), chosen({"0.0001": 3}, 5e-4)
    (3, 0)
    """
    return sum(number for text, number in counts.items() if float(text) == rate)


FILTERS: dict[str, Callable[..., Any]] = {
    "points": points,
    "difference": difference,
    "unsigned": unsigned,
    "share": share,
    "percent": percent,
    "whole_percent": whole_percent,
    "whole": whole_share,
    "level": level,
    "duration": duration,
    "distance": distance,
    "verdict": verdict,
    "tone": tone,
    "span": span,
    "chosen": chosen,
    "quality": number,
}
"""Filters of the page's template."""


def _signed(value: float, decimals: int) -> str:
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}".replace("-", "−") if rounded else f"{0:.{decimals}f}"
