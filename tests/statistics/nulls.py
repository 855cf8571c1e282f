"""Simulated comparisons without a true difference, and rules whose errors on them are counted."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from saliency_pipeline.statistics.crossed import crossed
from saliency_pipeline.statistics.hierarchy import BETTER, WORSE, Estimate, hierarchy, t_test, verdict

Floats = npt.NDArray[np.float64]
Random = np.random.Generator


def share(count: int, errs: Callable[[Random], bool], seed: int = 0) -> float:
    """Share of `count` simulated nulls in which a test errs."""
    random = np.random.default_rng(seed)
    return float(np.mean([errs(random) for _ in range(count)]))


def correctness(
    random: Random, seeds: int, images: int, *, of_seed: float, of_image: float, of_both: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Correctness (seeds, images) of two arms that are equally good on average over all seeds and images.

    An image is classified correctly where a latent score is high: the image's own difficulty, shared by both arms,
    plus what is particular to a run, to an arm on an image, and to a run on an image (standard deviations).
    """
    difficulty = random.normal(0, 1.5, (1, images))

    def arm() -> npt.NDArray[np.bool_]:
        own = random.normal(0, of_seed, (seeds, 1)) + random.normal(0, of_image, (1, images))
        return np.asarray(difficulty + own + random.normal(0, of_both, (seeds, images)) > -0.8)

    return arm(), arm()


def crossed_errs(seeds: int, images: int, **deviations: float) -> Callable[[Random], bool]:
    """Return a rule: True if images x seeds show a difference at 5 % where there is none."""
    return lambda random: crossed(*correctness(random, seeds, images, **deviations)).p < 0.05


def estimates(
    random: Random, datasets: int, *, mean: float, spread: float, error: float, freedom: int
) -> list[Estimate]:
    """Measured differences on data sets whose true ones vary by `spread` around `mean`."""
    measured = mean + random.normal(0, spread, datasets) + random.normal(0, error, datasets)
    errors = error * np.sqrt(random.chisquare(freedom, datasets) / freedom)
    return [Estimate(float(m), float(e), freedom) for m, e in zip(measured, errors, strict=True)]


def hierarchy_errs(datasets: int, spread: float, error: float, freedom: int) -> Callable[[Random], bool]:
    """Return a rule: True if data sets without a mean difference get "better" or "worse"."""

    def errs(random: Random) -> bool:
        null = estimates(random, datasets, mean=0.0, spread=spread, error=error, freedom=freedom)
        # the verdict takes both, and the test is the faster one
        significant = t_test([each.mean for each in null]) < 0.05
        return significant and verdict(hierarchy(null, rope=0.01)) in (BETTER, WORSE)

    return errs
