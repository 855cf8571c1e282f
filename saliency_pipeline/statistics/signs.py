"""Exact sign test of paired values."""

from __future__ import annotations

from scipy import stats


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p of the exact sign test: ties carry no sign and are left out.

    Args:
        wins: number of pairs in which the first value is better.
        losses: number of pairs in which the second is.

    >>> sign_test(5, 0), sign_test(0, 0)
    (0.0625, 1.0)
    """
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
