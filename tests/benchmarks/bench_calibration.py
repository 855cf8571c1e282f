"""Error rates of verdicts where there is no difference, and what they detect; [--simulations N].

Prints shares of simulated comparisons with their Wilson 95 % intervals: python -m tests.benchmarks.bench_calibration
"""

import argparse
from collections.abc import Callable

import numpy as np

from saliency_pipeline.statistics.power import detectable, pairs_needed
from saliency_pipeline.statistics.sequential import levels
from tests.statistics.simulation import (
    FOLDS,
    LOOKS,
    RATIO,
    REPEATS,
    WRONG,
    claimed,
    correlated,
    cross_validated,
    curves,
    family,
    higher_early,
    looked,
    normal_family,
    rate,
    speed_word,
    verdict_of,
)

SD = 0.015


def line(name: str, outcomes: list[bool]) -> None:
    print(f"  {name:<78} {rate(outcomes)}")


def primary(count: int) -> None:
    print(f"(a) one primary question, {FOLDS} folds x {REPEATS} repeats")
    for name, images, per_class, same in (
        ("learners, 100 images, all of them", 100, None, False),
        ("learners, 600 images, 15 per class, sampled for each fold", 600, 15, False),
        ("learners, 600 images, 15 per class, sampled once per repeat", 600, 15, True),
    ):
        random = np.random.default_rng(0)
        words = []
        for _ in range(count):
            scores = cross_validated(random, images, budgets=(per_class,), same_draw=same)[..., 0, 0]
            words.append(verdict_of(scores[:, 1] - scores[:, 0]))
        line(name, [word in WRONG for word in words])
    random = np.random.default_rng(0)
    words = [verdict_of(correlated(random, 10)) for _ in range(10 * count)]
    line(f"normal differences, correlated as assumed, {10 * count}", [word in WRONG for word in words])


def families(count: int) -> None:
    def rules(budgets: int, sample: Callable[[np.random.Generator], dict[tuple[int, str, int], np.ndarray]]) -> None:
        random, one, landed, none = np.random.default_rng(0), [], [], []
        for _ in range(count):
            differences = sample(random)
            values, keys = list(differences.values()), list(differences)
            one.append(claimed(values, [0] * len(keys)))
            landed.append(claimed(values, [key[1:] for key in keys]))
            none.append(claimed(values, keys))
        line(f"{budgets} budgets: Holm over all {len(keys)} questions", one)
        line(f"{budgets} budgets: Holm within a measure of a budget (the earlier rule)", landed)
        line(f"{budgets} budgets: unadjusted", none)

    print("(b) any wrong verdict: 4 arms x 2 measures x budgets, one baseline, nested budgets")
    print(" learners, 150 images")
    rules(3, lambda random: family(random, (5, 15, None)))
    rules(5, lambda random: family(random, (4, 8, 16, 32, None)))
    print(" normal differences, correlated as assumed")
    rules(3, lambda random: normal_family(random, 3))
    print(" normal differences, one arm, one measure, independent budgets")
    rules(5, lambda random: {(1, "final", budget): correlated(random, 10) for budget in range(5)})


def looks(count: int) -> None:
    at = ", ".join(f"{level:.4f}" for level in levels(LOOKS, RATIO))
    print(f"(c) looks after {', '.join(map(str, LOOKS))} pairs, levels {at}")

    def learners(random: np.random.Generator) -> np.ndarray:
        scores = cross_validated(random, 100, repeats=5)[..., 0, 0]
        return scores[:, 1] - scores[:, 0]

    for name, times, sample in (
        ("learners, 100 images", 1, learners),
        (f"normal differences, {10 * count}", 10, lambda source: correlated(source, LOOKS[-1])),
    ):
        random = np.random.default_rng(0)
        differences = [sample(random) for _ in range(times * count)]
        line(f"{name}: alpha spent over the looks", [looked(own, LOOKS) for own in differences])
        line(f"{name}: 5 % at every look (the earlier rule)", [looked(own, LOOKS, [0.05] * 5) for own in differences])


def speed(count: int) -> None:
    print("(d) faster, by the time to the own level, and higher early, by the area; 10 pairs, 30 epochs")
    quiet = {"noise": 0.003, "vary": 0.25}
    for name, options in (
        ("nothing", {}),
        ("+3 points at every epoch", {"shift": 0.03}),
        ("-3 points at every epoch", {"shift": -0.03}),
        ("+3 points, little noise", {"shift": 0.03, **quiet}),
        ("+3 points, little noise, slow approach", {"shift": 0.03, "tau": 8.0, **quiet}),
        ("1.5 x the rate", {"rates": (1.0, 1.5)}),
        ("1.5 x the rate, +3 points", {"rates": (1.0, 1.5), "shift": 0.03}),
        ("1.5 x the rate, twice the noise", {"rates": (1.0, 1.5), "noise": 0.025}),
        ("1.3 x the rate", {"rates": (1.0, 1.3)}),
    ):
        random = np.random.default_rng(0)
        pairs = [curves(random, 10, **options) for _ in range(count)]
        words = [speed_word(*pair) for pair in pairs]
        line(f"{name}: faster", [word == "faster" for word in words])
        line(f"{name}: slower", [word == "slower" for word in words])
        line(
            f"{name}: faster, by the own final accuracy alone",
            [speed_word(*p, guarded=False) == "faster" for p in pairs],
        )
        line(f"{name}: higher early (called faster by the earlier rule)", [higher_early(*pair) for pair in pairs])


def power(count: int) -> None:
    print(f"(e) difference found in 80 %, in points, at the level used; sd of the differences {100 * SD} points")
    random = np.random.default_rng(0)
    used = {
        "primary, 0.05": 0.05,
        "one of 24 secondary, 0.05 / 24": 0.05 / 24,
        f"last of 5 looks, {levels(LOOKS, RATIO)[-1]:.4f}": levels(LOOKS, RATIO)[-1],
    }
    print(
        f"  {'level':<32}"
        + "".join(f"{f'{n} pairs':>10}" for n in (6, 10, 25, 50))
        + "   pairs for 2 points   found by 10 pairs"
    )
    for name, level in used.items():
        row = "".join(f"{100 * detectable(SD, pairs, RATIO, alpha=level):>10.2f}" for pairs in (6, 10, 25, 50))
        needed = pairs_needed(SD, RATIO, 0.02, alpha=level)
        # the sample's deviation is that of the part that pairs do not share
        effect, sd = detectable(SD, 10, RATIO, alpha=level), SD * np.sqrt(1 + RATIO)
        words = [verdict_of(correlated(random, 10, mean=effect, sd=sd), level=level) for _ in range(count)]
        print(f"  {name:<32}{row}{needed or 'never':>21}   {rate([word == 'better' for word in words])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    count = parser.parse_args().simulations
    print(f"{count} simulated comparisons each: share, Wilson 95 % interval")
    for part in (primary, families, looks, speed, power):
        part(count)


if __name__ == "__main__":
    main()
