"""Simulated comparisons of arms that are equally good, or differ as is asked: how often does a rule give a verdict?

The learners are real ones, small enough for thousands of cross-validations: nearest class means. Every data set is
sampled anew from a population in which each arm's own group of features separates two classes equally well. What
correlates the folds is what correlates them in practice: shared training images, validation images that come again in
the next repeat, one baseline for all arms, budgets of which the smaller is part of the larger.

Beside them normal differences with exactly the correlation that the corrected test assumes, for which its levels hold
with equality, and learning curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from saliency_pipeline.statistics.contrast import BETTER, WORSE, evaluate, verdict
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import ALPHA
from saliency_pipeline.statistics.sequential import levels
from saliency_pipeline.statistics.speed import area, own_level, restricted_time, time_differences

FEATURES, SEPARATION = 8, 1.2
FOLDS, REPEATS = 5, 2
RATIO = 1 / (FOLDS - 1)
LOOKS = tuple(FOLDS * repeats for repeats in range(1, 6))
WRONG = ("better", "worse")
EPOCHS = 30


@dataclass(frozen=True)
class Rate:
    """A share of simulated comparisons and its Wilson 95 % interval."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        low, high = stats.binomtest(self.hits, self.count).proportion_ci(0.95, "wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        return "{:.3f} [{:.3f}, {:.3f}]".format(self.value, *self.interval)


def rate(outcomes: Sequence[bool]) -> Rate:
    return Rate(int(np.sum(outcomes)), len(outcomes))


def cross_validated(
    random: np.random.Generator,
    images: int,
    *,
    arms: int = 2,
    budgets: Sequence[int | None] = (None,),
    shares: Sequence[float] = (1.0,),
    repeats: int = REPEATS,
    same_draw: bool = False,
) -> np.ndarray:
    """Validation accuracies of equally good arms over folds and repeats of one data set.

    Args:
        random: source of all randomness.
        images: number of images, half of each class.
        arms: number of arms, each with its own group of features.
        budgets: training images per class sampled for a fold, smaller samples being part of larger ones; None for all.
        shares: points of a learning curve: shares of the training images that have been read.
        repeats: of the folds.
        same_draw: if True, the folds of a repeat sample in the same order, as far as images are not held out.

    Returns:
        (J, arms, budgets, shares) float64.
    """
    labels = np.arange(images) % 2
    features = random.standard_normal((arms, images, FEATURES))
    features[..., 0] += SEPARATION * (labels - 0.5)
    accuracies = []
    for _ in range(repeats):
        fold = np.empty(images, np.int64)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            fold[random.permutation(members)] = np.arange(len(members)) % FOLDS
        order = random.permutation(images)
        for held_out in range(FOLDS):
            if not same_draw:
                order = random.permutation(images)
            pool = order[fold[order] != held_out]
            rows = [pool[labels[pool] == label] for label in (0, 1)]
            most = min(map(len, rows))
            read = np.array(
                [[max(1, round(share * (budget or most))) for share in shares] for budget in budgets]
            ).ravel()
            # class means after so many images (arms, K, F)
            low, high = (features[:, own[: read.max()]].cumsum(1)[:, read - 1] / read[:, None] for own in rows)
            along, test = high - low, fold == held_out
            # the side of the plane between the two means
            side = along @ features[:, test].transpose(0, 2, 1) > (along * (low + high)).sum(-1, keepdims=True) / 2
            accuracies.append((side == labels[test]).mean(-1).reshape(arms, len(budgets), len(shares)))
    return np.array(accuracies)


def correlated(
    random: np.random.Generator, pairs: int, ratio: float = RATIO, mean: float = 0.0, sd: float = 0.015
) -> np.ndarray:
    """Normal differences (J,) with the correlation that the corrected test takes them to have: ratio / (1 + ratio)."""
    return mean + sd * shared(random, (pairs,), ratio)


def shared(random: np.random.Generator, shape: tuple[int, ...], ratio: float = RATIO) -> np.ndarray:
    """Standard normal values, correlated along the first axis, that of pairs, by ratio / (1 + ratio)."""
    part = ratio / (1 + ratio)
    return np.sqrt(part) * random.standard_normal((1, *shape[1:])) + np.sqrt(1 - part) * random.standard_normal(shape)


def curves(
    random: np.random.Generator,
    pairs: int,
    *,
    rates: Sequence[float] = (1.0, 1.0),
    shift: float = 0.0,
    noise: float = 0.012,
    tau: float = 4.0,
    vary: float = 1.0,
) -> list[np.ndarray]:
    """Validation curves (J, EPOCHS) of two arms that approach their final accuracies exponentially.

    Folds are of different difficulty and speed for both arms alike; each arm adds its own variation, and noise that
    shrinks as the learning rate does, both correlated over pairs as the corrected test assumes.

    Args:
        random: source of all randomness.
        pairs: J.
        rates: speed of either arm.
        shift: added to every epoch of the second arm.
        noise: standard deviation of the noise per epoch.
        tau: epochs in which the distance from the final accuracy shrinks to 1 / e, at a speed of 1.
        vary: factor of the variation of final accuracy and of speed between runs of an arm.
    """
    epochs = np.arange(1, EPOCHS + 1)
    fold, pace = random.normal(0, 0.02, (pairs, 1)), random.normal(0, 0.15, (pairs, 1))
    both = []
    for arm, speed in enumerate(rates):
        top = 0.8 + fold + vary * 0.008 * shared(random, (pairs, 1))
        time = tau / speed * np.exp(pace + vary * 0.075 * shared(random, (pairs, 1)))
        rise = top - (top - 0.15) * np.exp(-epochs / time)
        wobble = noise * np.linspace(1.5, 0.5, EPOCHS) * shared(random, (pairs, EPOCHS))
        both.append(rise + wobble + arm * shift)
    return both


def verdict_of(differences: np.ndarray, *, level: float = ALPHA) -> str:
    """Return the verdict on differences, without adjustment for other questions."""
    contrast = evaluate(np.zeros(len(differences)), differences, RATIO)
    return verdict(contrast, contrast.p, level=level)


def speed_word(first: np.ndarray, second: np.ndarray, *, guarded: bool = True) -> str:
    """Return the verdict on speed; unguarded, only by 95 % of the own final accuracy, which is sensitive to a shift."""
    if guarded:
        differences = time_differences(list(first), list(second), EPOCHS)
    else:
        differences = np.array([time(b) - time(a) for a, b in zip(first, second, strict=True)])
    contrast = evaluate(np.zeros(len(differences)), differences, RATIO, rope=0.0)
    word = verdict(contrast, contrast.p)
    # more epochs are slower
    return {BETTER: "slower", WORSE: "faster"}.get(word, word)


def time(curve: np.ndarray) -> float:
    return restricted_time(curve, own_level([curve]), EPOCHS)


def higher_early(first: np.ndarray, second: np.ndarray) -> bool:
    """True if the area under the first epochs is better."""
    return verdict_of(np.array([area(b) - area(a) for a, b in zip(first, second, strict=True)])) == BETTER


def claimed(differences: Sequence[np.ndarray], families: Sequence[object]) -> bool:
    """True if any of several questions, adjusted by Holm within each family, gets a verdict of better or worse."""
    contrasts = [evaluate(np.zeros(len(own)), own, RATIO) for own in differences]
    adjusted = np.array([contrast.p for contrast in contrasts])
    for family in set(families):
        members = [i for i, name in enumerate(families) if name == family]
        adjusted[members] = holm(adjusted[members].tolist())
    words = [verdict(contrast, p) for contrast, p in zip(contrasts, adjusted, strict=True)]
    return BETTER in words or WORSE in words


def looked(differences: np.ndarray, pairs: Sequence[int], at: Sequence[float] | None = None) -> bool:
    """True if any look gets a verdict of better or worse: at levels of planned looks, or at others."""
    words = []
    for so_far, level in zip(pairs, at or levels(pairs, RATIO), strict=True):
        contrast = evaluate(np.zeros(so_far), differences[:so_far], RATIO)
        words.append(verdict(contrast, contrast.p, level=level))
    return BETTER in words or WORSE in words


def family(
    random: np.random.Generator, budgets: Sequence[int | None], *, arms: int = 4, images: int = 150
) -> dict[tuple[int, str, int], np.ndarray]:
    """Differences (J,) by arm, measure and budget of arms that are as good as their one baseline."""
    scores = cross_validated(random, images, arms=arms + 1, budgets=budgets, shares=(0.25, 0.5, 0.75, 1.0))
    measures = {"final": scores[..., -1], "area": np.trapezoid(scores, axis=-1) / 3}
    return {
        (arm, name, budget): values[:, arm, budget] - values[:, 0, budget]
        for name, values in measures.items()
        for budget in range(len(budgets))
        for arm in range(1, arms + 1)
    }


def normal_family(
    random: np.random.Generator, budgets: int, *, arms: int = 4, pairs: int = FOLDS * REPEATS
) -> dict[tuple[int, str, int], np.ndarray]:
    """The same of normal scores with the exact correlation over pairs; measures and budgets share parts of each."""
    run = shared(random, (pairs, arms + 1, 1, 1))
    of_budget = shared(random, (pairs, arms + 1, 1, budgets))
    own = shared(random, (pairs, arms + 1, 2, budgets))
    scores = 0.01 * (run + of_budget + own)
    return {
        (arm, name, budget): scores[:, arm, measure, budget] - scores[:, 0, measure, budget]
        for measure, name in enumerate(("final", "area"))
        for budget in range(budgets)
        for arm in range(1, arms + 1)
    }
