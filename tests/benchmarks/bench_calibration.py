"""How often verdicts err, and what they find: python -m tests.benchmarks.bench_calibration [--simulations N]."""

import argparse

import numpy as np

from saliency_pipeline.statistics.power import detectable
from tests.statistics.simulation import FOLDS, REPEATS, correlated, rates, said

EFFECTS, PAIRS, SD = (0.0, 0.01, 0.02, 0.03, 0.05), (6, 10, 25), 0.015


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    count = parser.parse_args().simulations
    print(
        f"{count} comparisons of two equally good learners, {FOLDS} folds x {REPEATS} repeats; share that errs at 5 %"
    )
    for name, images, per_class, same in (
        ("100 images, all of them", 100, None, False),
        ("600 images, 15 a class, drawn for each fold", 600, 15, False),
        ("600 images, 15 a class, one draw a repeat", 600, 15, True),
    ):
        found = rates(count, images, per_class, same_draw=same)
        print(f"  {name:<45} verdict {found.wrong:.3f}   ordinary paired t {found.naive:.3f}   sd {found.sd:.3f}")
    ratio = 1 / (FOLDS - 1)
    print(f"share of verdicts 'better' (and 'equivalent'); sd {SD:.3f}, correlated as {FOLDS} folds are")
    random = np.random.default_rng(0)
    print("  pairs " + "".join(f"{100 * effect:>14.0f} points" for effect in EFFECTS) + "   found in 80 %")
    for pairs in PAIRS:
        row = f"  {pairs:>5} "
        for effect in EFFECTS:
            words = [said(correlated(random, pairs, ratio, effect, SD), ratio) for _ in range(count // 4)]
            row += f"{words.count('better') / len(words):>13.2f} ({words.count('equivalent') / len(words):.2f})"
        print(f"{row}   {100 * detectable(SD / np.sqrt(1 + ratio), pairs, ratio):.1f} points")


if __name__ == "__main__":
    main()
