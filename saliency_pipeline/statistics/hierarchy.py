"""Two arms on several data sets: hierarchical model, its posterior, verdict.

Model
    Corani, Benavoli, Demsar, Mangili and Zaffalon (Statistical comparison of classifiers through Bayesian hierarchical
    modeling, Machine Learning 106, 2017). Data set i has a true difference delta_i of which a comparison gives the
    mean difference d_i, its standard error s_i, corrected for shared training images (Nadeau and Bengio 2003), and
    degrees of freedom n_i: d_i ~ Student(n_i, delta_i, s_i), delta_i ~ Normal(mu0, tau). mu0 is the mean over data sets
    of the kind at hand, tau their spread.
Priors
    mu0 is uniform. tau has the reference prior of this model (Berger and Bernardo 1992; Bodnar, Link, Arendacka,
    Possolo and Elster, Bayesian estimation in random effects meta-analysis using a non-informative prior, Statistics
    in Medicine 36, 2017), proportional to sqrt(sum((tau / (tau^2 + s_i^2))^2)). Corani et al. take a uniform prior of
    tau, with which three data sets never show anything (Student's t with one degree of freedom); with this
    prior the interval of mu0 becomes Student's t with k - 1 degrees of freedom where data sets differ by more than
    their standard errors. Both priors have no scale of their own, so that differences may be in any unit.
Rule
    Regions of practical equivalence and posterior probabilities as in Benavoli, Corani, Demsar and Zaffalon (Time for
    a change, Journal of Machine Learning Research 18, 2017). The prior of tau treats the s_i as known, so that nothing
    guarantees 5 % where data sets differ much: of 20,000 nulls over three data sets the posterior alone errs in 5.1 %.
    A verdict therefore also takes Student's t test of the k mean differences, which is exact there (together 5.0 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import ALPHA, LEVEL

Floats = npt.NDArray[np.float64]

MINIMUM_DATASETS = 3
BETTER, WORSE, EQUIVALENT, UNDECIDED, TOO_FEW = "better", "worse", "equivalent", "undecided", "too few data sets"

# number of nodes of tau, of mu0, and of the mixture of normals that approximates Student's t
_SPREADS, _CENTERS, _SCALES = 80, 321, 32


@dataclass(frozen=True)
class Estimate:
    """Mean difference measured on one data set.

    Attributes:
        mean: mean of the paired differences, in units of the score.
        error: corrected standard error of the mean, above 0.
        freedom: degrees of freedom of the error, at least 1: pairs - 1.
    """

    mean: float
    error: float
    freedom: float


@dataclass(frozen=True)
class Chances:
    """Posterior probabilities of a difference below, within and above the region of practical equivalence."""

    below: float
    within: float
    above: float


@dataclass(frozen=True)
class Posterior:
    """The posterior over data sets.

    Attributes:
        datasets: k.
        median: posterior median of mu0, the mean difference over data sets, in units of the score. (With heavy tails it
            is more stable than the posterior mean, which does not exist for two data sets.)
        low: lower end of its 95 % credible interval.
        high: its upper end.
        positive: posterior probability that mu0 is above 0.
        p: two-sided p of Student's t test of the k mean differences; see `t_test`.
        overall: probabilities that mu0 is below, within and above the region.
        next: the same for the true difference on another data set.
        spread: posterior median of tau, the standard deviation of true differences over data sets.
    """

    datasets: int
    median: float
    low: float
    high: float
    positive: float
    p: float
    overall: Chances
    next: Chances
    spread: float


@dataclass(frozen=True)
class Hierarchy(Posterior):
    """The posterior with `shrunken`, the mean of the true difference of each data set, pulled towards the others."""

    shrunken: tuple[float, ...]


def hierarchy(estimates: Sequence[Estimate], *, rope: float) -> Hierarchy:
    """Compute the posterior by numerical integration on a fixed grid: deterministic, no sampling.

    Args:
        estimates: one per data set, two or more, of data sets that share no images.
        rope: half width of the region of practical equivalence, in units of the score.

    Raises:
        SalpipeError: fewer than two data sets, or an estimate or a rope that is not a number of its range.

    >>> estimates = [Estimate(mean, 0.004, 9) for mean in (0.02, 0.03, 0.025)]
    >>> posterior = hierarchy(estimates, rope=0.01)
    >>> f"{posterior.median:.3f} [{posterior.low:.3f}, {posterior.high:.3f}]: {verdict(posterior)}"
    '0.025 [0.011, 0.039]: better'
    """
    if len(estimates) < 2:
        raise SalpipeError(f"{len(estimates)} data set: too few to estimate a spread; compare on two or more")
    means, errors, freedom = np.array([[e.mean, e.error, e.freedom] for e in estimates], np.float64).T
    if not (np.isfinite(means).all() and np.isfinite(errors).all() and (errors > 0).all() and (freedom >= 1).all()):
        raise SalpipeError("a data set's estimate: not a finite mean with an error above 0 and 1 degree of freedom")
    if not (math.isfinite(rope) and rope >= 0):
        raise SalpipeError(f"rope {rope}: not a number from 0; use 0.01 for one point")
    unit = float(np.sqrt(np.mean(errors**2)) + np.std(means))
    taus, centers, weights = _grid(means, errors, unit)
    log_density = np.zeros((_SPREADS, _CENTERS))
    pulled = []
    for mean, error, degrees in zip(means, errors, freedom, strict=True):
        density, moment = _of_dataset(float(mean), float(error), float(degrees), taus, centers)
        log_density += np.log(density)
        pulled.append(moment / density)
    posterior = np.exp(log_density - log_density.max()) * weights
    posterior /= posterior.sum()
    of_center, of_tau = posterior.sum(axis=0), posterior.sum(axis=1)
    low, median, high = _quantiles(centers, of_center, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
    above, below = ((sign * centers[None, :] - rope) / taus[:, None] for sign in (1, -1))
    further = float((posterior * special.ndtr(above)).sum()), float((posterior * special.ndtr(below)).sum())
    under, over = _share_below(centers, of_center, -rope), 1 - _share_below(centers, of_center, rope)
    return Hierarchy(
        len(estimates),
        median,
        low,
        high,
        1 - _share_below(centers, of_center, 0.0),
        t_test([each.mean for each in estimates]),
        Chances(under, max(0.0, 1 - under - over), over),
        Chances(further[1], max(0.0, 1 - sum(further)), further[0]),
        math.exp(_quantiles(np.log(taus), of_tau, (0.5,))[0]),
        tuple(float((posterior * each).sum()) for each in pulled),
    )


def verdict(posterior: Posterior) -> str:
    """Return the verdict over data sets.

    `too few data sets` below three. `better` or `worse` if the 95 % credible interval of mu0 excludes 0, that is, mu0
    is on one side of it with a probability of 97.5 %, and the t test of the mean differences has p < 0.05;
    `equivalent` if mu0 is within the region of practical equivalence with 95 %; else `undecided`. Equivalence comes
    first: a certain difference that is too small to matter supports no claim.
    """
    if posterior.datasets < MINIMUM_DATASETS:
        return TOO_FEW
    if posterior.overall.within >= LEVEL:
        return EQUIVALENT
    if posterior.p < ALPHA and posterior.positive >= (1 + LEVEL) / 2:
        return BETTER
    if posterior.p < ALPHA and posterior.positive <= (1 - LEVEL) / 2:
        return WORSE
    return UNDECIDED


def t_test(means: Sequence[float]) -> float:
    """Return the two-sided p of Student's t test of k equally weighted mean differences (k - 1 degrees of freedom).

    Exact if true differences are normally distributed over data sets and measured about equally well. If all means are
    equal, it is 1 for a mean of 0, and 0 otherwise.

    >>> round(t_test([0.02, 0.03, 0.025]), 4)
    0.0131
    """
    values = np.asarray(means, np.float64)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    if error <= 1e-12 * abs(mean):
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, len(values) - 1))


def _grid(means: Floats, errors: Floats, unit: float) -> tuple[Floats, Floats, Floats]:
    """Return values of tau (T,) and mu0 (M,), and the prior times the area of each cell (T, M).

    tau is spaced evenly in its logarithm, mu0 in the inverse hyperbolic sine: dense where the data support them, and
    reaching far beyond.
    """
    steps = np.linspace(math.log(1e-3), math.log(1e3), _SPREADS)
    taus = unit * np.exp(steps)
    prior = np.sqrt(((taus[:, None] / (taus[:, None] ** 2 + errors**2)) ** 2).sum(axis=1))
    bent = np.linspace(-9, 9, _CENTERS)
    # the smallest standard deviation that the posterior of mu0 can have
    scale = float(1 / np.sqrt((1 / errors**2).sum()))
    middle = float(np.average(means, weights=1 / (errors**2 + np.var(means))))
    centers = middle + scale * np.sinh(bent)
    return taus, centers, (taus * prior)[:, None] * np.cosh(bent)[None, :]


def _of_dataset(mean: float, error: float, freedom: float, taus: Floats, centers: Floats) -> tuple[Floats, Floats]:
    """Return the density (T, M) of a data set's mean difference, and its product with the expected true difference.

    Student's t is a mixture of normals over gamma-distributed precisions, here over nodes of Gauss-Laguerre quadrature.
    """
    nodes, shares = special.roots_genlaguerre(_SCALES, freedom / 2 - 1)
    shares = shares / shares.sum()
    density, moment = np.zeros((len(taus), len(centers))), np.zeros((len(taus), len(centers)))
    offsets, between = mean - centers[None, :], taus[:, None] ** 2
    for node, share in zip(nodes, shares, strict=True):
        within = error**2 * freedom / 2 / node
        total = between + within
        own = share * np.exp(-(offsets**2) / (2 * total)) / np.sqrt(total)
        density += own
        moment += own * (mean * between + centers[None, :] * within) / total
    return np.maximum(density, 1e-300), moment


def _quantiles(values: Floats, weights: Floats, levels: Sequence[float]) -> list[float]:
    cumulated = np.cumsum(weights) - weights / 2
    return [float(np.interp(level, cumulated, values)) for level in levels]


def _share_below(values: Floats, weights: Floats, value: float) -> float:
    return float(np.interp(value, values, np.cumsum(weights) - weights / 2, left=0.0, right=1.0))
