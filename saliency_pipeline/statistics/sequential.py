"""Planned looks at a comparison while pairs of runs are added: the level of each look, by alpha spending.

Information. Nadeau & Bengio's variance of the mean of J differences is s² (1/J + ratio); the information of J pairs is
its inverse, I = 1 / (1/J + ratio), in units of 1/s². It is that of differences with variance σ² and a common
correlation ρ, with s² = σ² (1 - ρ) and ratio = ρ / (1 - ρ).

Joint distribution. The mean of the first J1 differences has with that of J2 >= J1 of them the covariance
(1 / (J1 J2)) σ² (J1 (1 - ρ) + J1 J2 ρ) = σ² ((1 - ρ) / J2 + ρ), which is the variance of the latter. So
corr(Z1, Z2) = sqrt(Var2 / Var1) = sqrt(I1 / I2): the canonical joint distribution of group sequential tests, in which
Z sqrt(I) is a Brownian motion (Jennison & Turnbull, Group Sequential Methods, 2000, chapter 3).

Spending. Lan & DeMets (Discrete sequential boundaries for clinical trials, Biometrika 70, 1983): each side of the
two-sided test spends 2 - 2 Φ(z / sqrt(t)) of its alpha / 2 until the share t of the information, z being the upper
alpha / 4 point of the normal distribution; the boundaries are near those of O'Brien & Fleming (1979), with next to no
chance of stopping early by accident. The levels are those of `sfLDOF` of R's gsDesign and of ldbounds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from saliency_pipeline.errors import SalpipeError

_FARTHEST = 38.0
_NODES, _MOST_NODES = 256, 1024


def information(pairs: int, ratio: float) -> float:
    """Information of J pairs on the true difference, in units of one over the variance of the differences.

    >>> information(10, 0.0), round(information(10, 0.25), 3)
    (10.0, 2.857)
    """
    return 1 / (1 / pairs + ratio)


def levels(pairs_per_look: Sequence[int], ratio: float, *, alpha: float = 0.05) -> list[float]:
    """The nominal two-sided level of each look, with which the p of the corrected t test at the look is compared.

    Testing at every look at its level errs once or more with probability alpha. Looks need not be equally spaced; a
    look that was made with other pairs than planned counts with those it had.

    Args:
        pairs_per_look: pairs at each look, those of earlier looks included; the last is the planned end.
        ratio: validation images over the images that training was drawn from.
        alpha: level of all looks together.

    Raises:
        SalpipeError: no look, fewer than one pair, or a look without new pairs.

    >>> [round(level, 4) for level in levels([10, 20], 0.0)], levels([10], 0.25)
    ([0.0031, 0.049], [0.05])
    """
    looks = list(pairs_per_look)
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        raise SalpipeError(
            f"looks after {looks} pairs: each must have more pairs than the one before; plan fewer looks"
        )
    if len(looks) == 1:
        return [alpha]
    share = np.array([information(pairs, ratio) for pairs in looks]) / information(looks[-1], ratio)
    return [float(2 * special.ndtr(-z)) for z in _boundaries(share, alpha / 2)]


def _boundaries(share: npt.NDArray[np.float64], alpha: float) -> list[float]:
    """Critical values of |Z| at shares of the information; alpha of one side.

    The recursion of Armitage, McPherson & Rowe (Repeated significance tests on accumulating data, JRSS A 132, 1969):
    the density of Z sqrt(t) over the paths that crossed no boundary yet is known at the nodes of a quadrature; the
    next boundary is where what crosses it is what is to be spent.
    """
    spend = np.diff(2 * special.ndtr(special.ndtri(alpha / 2) / np.sqrt(share)), prepend=0.0)
    steps = np.sqrt(np.diff(share, prepend=0.0))
    # nodes are closer together than the narrowest step is wide
    intervals = 2 * math.ceil(min(_MOST_NODES, max(_NODES, 24 / steps.min())) / 2)
    points = np.linspace(-1.0, 1.0, intervals + 1)
    weights = _simpson(intervals)
    # before the first look all paths are at 0
    places, mass = np.zeros(1), np.ones(1)
    critical = []
    for t, step, amount in zip(share, steps, spend, strict=True):
        bound = _crossed_by(float(amount), places, mass, float(step))
        critical.append(bound / math.sqrt(t))
        # quadrature over the continuation region, or as much of it as has any density
        reach = min(bound, 9.0 * math.sqrt(t))
        after = reach * points
        density = np.exp(-0.5 * ((after[:, None] - places) / step) ** 2) @ mass / (step * math.sqrt(2 * math.pi))
        places, mass = after, reach * weights * density
    return critical


def _simpson(intervals: int) -> npt.NDArray[np.float64]:
    """Weights of Simpson's rule on [-1, 1] for an even number of intervals."""
    weights = np.full(intervals + 1, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * 2 / (3 * intervals)


def _crossed_by(amount: float, places: npt.NDArray[np.float64], mass: npt.NDArray[np.float64], step: float) -> float:
    """The boundary that some probability crosses in the next step, of paths with probability `mass` at `places`."""

    def excess(bound: float) -> float:
        return float(mass @ special.ndtr((places - bound) / step)) - amount

    if excess(_FARTHEST) >= 0:
        return _FARTHEST
    return float(optimize.brentq(excess, 0.0, _FARTHEST, xtol=1e-12, rtol=1e-12))
