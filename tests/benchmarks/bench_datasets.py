"""Error rates of verdicts over data sets, and on one split: python -m tests.benchmarks.bench_datasets."""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np

from saliency_pipeline.statistics.hierarchy import BETTER, hierarchy, verdict
from saliency_pipeline.statistics.shares import wilson
from tests.statistics.nulls import Random, crossed_errs, estimates, hierarchy_errs, share

CONDITIONS = ((0.0, 0.0, 1.0), (0.05, 0.3, 1.0), (0.3, 0.0, 1.0), (0.1, 1.0, 0.3), (0.5, 0.3, 0.3))
"""Standard deviations of a latent score: of a run, of an arm on an image, of a run on an image."""

ERRORS = ((0.005, 9), (0.002, 9), (0.01, 5), (0.01, 1))
"""Standard error of the difference on a data set, and its degrees of freedom."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    count = parser.parse_args().simulations
    print(f"{count} nulls each: share that errs at 5 %, with Wilson's 95 % interval")
    print("images x seeds on one split (deviations of a run, an arm on an image, a run on an image)")
    for seeds, images, (seed, image, both) in product((6, 10), (100, 500), CONDITIONS):
        errs = crossed_errs(seeds, images, of_seed=seed, of_image=image, of_both=both)
        _report(f"{seeds} seeds, {images} images, {seed:.2f} {image:.2f} {both:.2f}", count, errs)
    print(f"data sets, {10 * count} nulls (spread of true differences; standard error, degrees of freedom), in points")
    for datasets, spread, (error, freedom) in product((3, 5), (0.0, 0.01, 0.05), ERRORS):
        name = f"{datasets} data sets, {100 * spread:.0f}; {100 * error:.1f}, {freedom}"
        _report(name, 10 * count, hierarchy_errs(datasets, spread, error, freedom))
    print(
        f"share of verdicts 'better' over data sets, {count // 4} each; standard error 0.6 points, 9 degrees of freedom"
    )
    random = np.random.default_rng(0)
    for datasets, spread in product((3, 5, 8), (0.0, 0.01)):
        values = [_better(random, count // 4, datasets, mean, spread) for mean in (0.01, 0.02, 0.03, 0.05)]
        shares = "  ".join(f"+{points}: {value:.2f}" for points, value in zip((1, 2, 3, 5), values, strict=True))
        print(f"  {datasets} data sets, spread {100 * spread:.0f} points   {shares}", flush=True)


def _report(name: str, count: int, errs: Callable[[Random], bool]) -> None:
    value = share(count, errs)
    low, high = map(float, wilson(value * count, count))
    print(f"  {name:<44} {value:.4f} [{low:.4f}, {high:.4f}]", flush=True)


def _better(random: Random, count: int, datasets: int, mean: float, spread: float) -> float:
    words = [
        verdict(hierarchy(estimates(random, datasets, mean=mean, spread=spread, error=0.006, freedom=9), rope=0.01))
        for _ in range(count)
    ]
    return words.count(BETTER) / count


if __name__ == "__main__":
    main()
