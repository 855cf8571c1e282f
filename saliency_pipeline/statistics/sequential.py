"""Group sequential testing: levels of planned looks at a comparison to which pairs are added, by alpha spending.

Information. Nadeau & Bengio's variance of the mean of J differences is s² (1/J + ratio); the information of J pairs is
its inverse, I = 1 / (1/J + ratio), in units of 1/s². It is that of differences with variance σ² and a common
correlation ρ, with s² = σ² (1 - ρ) and ratio = ρ / (1 - ρ).

Joint distribution. The covariance of the means of the first J1 and the first J2 >= J1 differences is
(1 / (J1 J2)) σ² (J1 (1 - ρ) + J1 J2 ρ) = σ² ((1 - ρ) / J2 + ρ), the variance of the latter. Hence
corr(Z1, Z2) = sqrt(Var2 / Var1) = sqrt(I1 / I2): the canonical joint distribution of group sequential tests, in which
Z sqrt(I) is a Brownian motion (Jennison & Turnbull, Group Sequential Methods, 2000, chapter 3).

Spending. Lan & DeMets (Discrete sequential boundaries for clinical trials, Biometrika 70, 1983): each side of the
two-sided test spends 2 - 2 Φ(z / sqrt(t)) of its alpha / 2 until the share t of the information, z being the upper
alpha / 4 point of the normal distribution. The boundaries are close to those of O'Brien & Fleming (1979), with a very
small chance of stopping early under the null; they are those of `sfLDOF` of R's gsDesign and of ldbounds.

Student's t. The p of a look is that of a t test. As every look estimates the standard deviation anew, the tests of
different looks are less correlated than Z: at the levels of Z, looks after 6, 8 and 10 pairs have a level of 5.8 %.
Jennison & Turnbull (Exact calculations for sequential t, χ² and F tests, Biometrika 78, 1991) integrate over two
dimensions; here the boundaries of Z are computed for a smaller alpha, for which the t tests have the requested level.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from saliency_pipeline.errors import SalpipeError

_FARTHEST = 38.0
_NODES, _MOST_NODES = 256, 1024
_PATHS, _ITERATIONS = 200_000, 5


def information(pairs: int, ratio: float) -> float:
    """Return the information of J pairs on the true difference, in units of one over the variance of the differences.

    >>> information(10, 0.0), round(information(10, 0.25), 3)
    (10.0, 2.857)
    """
    return 1 / (1 / pairs + ratio)


def levels(pairs_per_look: Sequence[int], ratio: float, *, alpha: float = 0.05) -> list[float]:
    """Return the nominal two-sided level of each look, for the p of the corrected t test at that look.

    All looks together have the level alpha. They need not be equally spaced; a look with another number of pairs than
    planned counts with the pairs it had.

    Args:
        pairs_per_look: cumulated number of pairs at each look; the last is the planned end.
        ratio: validation images over the images that training was sampled from.
        alpha: level of all looks together.

    Raises:
        SalpipeError: no look, fewer than one pair, or a look without new pairs.

    >>> [round(level, 4) for level in levels([10, 20], 0.0)], levels([10], 0.25)
    ([0.003, 0.0489], [0.05])
    """
    looks = list(pairs_per_look)
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        raise SalpipeError(
            f"looks after {looks} pairs: each must have more pairs than the one before; plan fewer looks"
        )
    return [alpha] if len(looks) == 1 else list(_levels(tuple(looks), ratio, alpha))


@functools.lru_cache(maxsize=64)
def _levels(looks: tuple[int, ...], ratio: float, alpha: float) -> tuple[float, ...]:
    """Compute levels at which the t tests have the level alpha; their difference from tests of Z is simulated."""
    share = [information(pairs, ratio) / information(looks[-1], ratio) for pairs in looks]
    t, z = _paths(looks, ratio)
    spent, nominal = alpha, np.zeros(len(looks))
    for _ in range(_ITERATIONS):
        nominal = 2 * special.ndtr(-np.array(boundaries(share, alpha=spent)))
        # scipy returns infinity of either sign for a level that underflows
        critical = np.abs([special.stdtrit(max(1, pairs - 1), p / 2) for pairs, p in zip(looks, nominal, strict=True)])
        crossed_t, crossed_z = (t > critical).any(1), (z > special.ndtri(1 - nominal / 2)).any(1)
        spent = min(alpha, alpha - float(crossed_t.mean() - crossed_z.mean()))
    return tuple(nominal.tolist())


def _paths(looks: tuple[int, ...], ratio: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Simulate absolute t and Z (paths, looks) under the null, from batch means and sums of squares.

    A difference is the sum of a normal value of variance `ratio`, common to all pairs, and one of variance 1.
    """
    random = np.random.default_rng(0)
    common = math.sqrt(ratio) * random.standard_normal(_PATHS)
    mean, squares, pairs = np.zeros(_PATHS), np.zeros(_PATHS), 0
    t, z = np.zeros((_PATHS, len(looks))), np.zeros((_PATHS, len(looks)))
    for look, after in enumerate(looks):
        added = after - pairs
        apart = random.standard_normal(_PATHS) / math.sqrt(added) - mean
        within = random.chisquare(added - 1, _PATHS) if added > 1 else 0.0
        squares = squares + within + pairs * added / after * apart**2
        mean, pairs = mean + added / after * apart, after
        z[:, look] = np.abs(common + mean) * math.sqrt(information(pairs, ratio))
        # a single pair has no test
        if pairs > 1:
            t[:, look] = z[:, look] / np.sqrt(squares / (pairs - 1))
    return t, z


def boundaries(share: Sequence[float], *, alpha: float = 0.05) -> list[float]:
    """Return critical values of the absolute Z at increasing shares of the information, of which the last is 1.

    The recursion of Armitage, McPherson & Rowe (Repeated significance tests on accumulating data, JRSS A 132, 1969):
    the density of Z sqrt(t) over the paths that have crossed no boundary is kept at the nodes of a quadrature; the
    next boundary is the one that is crossed with the probability to be spent.

    >>> [round(z, 2) for z in boundaries([0.2, 0.4, 0.6, 0.8, 1.0])]
    [4.88, 3.36, 2.68, 2.29, 2.03]
    """
    spend = np.diff(2 * special.ndtr(special.ndtri(alpha / 4) / np.sqrt(share)), prepend=0.0)
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
    """Return the bound that paths, with `mass` at `places`, exceed one step later with probability `amount`."""

    def excess(bound: float) -> float:
        return float(mass @ special.ndtr((places - bound) / step)) - amount

    if excess(_FARTHEST) >= 0:
        return _FARTHEST
    return float(optimize.brentq(excess, 0.0, _FARTHEST, xtol=1e-12, rtol=1e-12))
