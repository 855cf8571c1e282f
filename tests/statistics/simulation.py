"""Simulated comparisons of two arms that are equally good: how often does a test find a difference?

The learners are real ones, small enough for thousands of cross-validations: nearest class means. Every data set is
drawn anew from a population in which two groups of features say equally much of two classes; one arm learns from the
one group, the other from the other. What correlates the folds is what correlates them in earnest: training images that
they share, validation images that come again in the next repeat.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from saliency_pipeline.statistics.contrast import evaluate, verdict

FEATURES, SEPARATION = 8, 1.2
FOLDS, REPEATS = 5, 2


@dataclass(frozen=True)
class Rates:
    """Shares of simulated comparisons.

    Attributes:
        verdicts: by verdict.
        naive: in which the ordinary paired t test is significant at 5 %.
        sd: mean standard deviation of the differences.
    """

    verdicts: dict[str, float]
    naive: float
    sd: float

    @property
    def wrong(self) -> float:
        """Better or worse, where there is nothing."""
        return self.verdicts.get("better", 0.0) + self.verdicts.get("worse", 0.0)


def cross_validated(
    random: np.random.Generator, images: int, per_class: int | None = None, *, same_draw: bool = False
) -> np.ndarray:
    """Differences (J,) in validation accuracy of two equally good arms, over folds and repeats of one data set.

    Args:
        random: of everything.
        images: in all, half of each class.
        per_class: training images of each class that a fold draws; None for all.
        same_draw: whether the folds of a repeat draw by one and the same order, as far as it is not held out.
    """
    labels = np.arange(images) % 2
    features = random.standard_normal((2, images, FEATURES))
    features[..., 0] += SEPARATION * (labels - 0.5)
    found = []
    for _ in range(REPEATS):
        fold = np.empty(images, np.int64)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            fold[random.permutation(members)] = np.arange(len(members)) % FOLDS
        order = random.permutation(images)
        for held_out in range(FOLDS):
            if not same_draw:
                order = random.permutation(images)
            pool = order[fold[order] != held_out]
            train = [pool[labels[pool] == label][:per_class] for label in (0, 1)]
            test = fold == held_out
            means = np.stack([features[:, rows].mean(1) for rows in train], 1)
            # the side of the plane between the two means
            along = means[:, 1] - means[:, 0]
            score = np.einsum("anf,af->an", features[:, test], along) - (along * means.mean(1)).sum(1)[:, None]
            accuracy = ((score > 0) == labels[test]).mean(1)
            found.append(accuracy[1] - accuracy[0])
    return np.array(found)


def rates(
    simulations: int, images: int, per_class: int | None = None, *, same_draw: bool = False, seed: int = 0
) -> Rates:
    """What the tests say of simulated comparisons in which there is nothing to be found."""
    random = np.random.default_rng(seed)
    ratio = 1 / (FOLDS - 1)
    counts: dict[str, int] = {}
    naive, spread = 0, 0.0
    for _ in range(simulations):
        differences = cross_validated(random, images, per_class, same_draw=same_draw)
        word = said(differences, ratio)
        counts[word] = counts.get(word, 0) + 1
        sd = differences.std(ddof=1)
        naive += bool(sd and stats.ttest_1samp(differences, 0).pvalue < 0.05)
        spread += sd
    return Rates(
        {word: count / simulations for word, count in counts.items()}, naive / simulations, spread / simulations
    )


def said(differences: np.ndarray, ratio: float) -> str:
    """The verdict on some differences, of one contrast alone."""
    found = evaluate(np.zeros(len(differences)), differences, ratio)
    return verdict(found, found.p)


def correlated(
    random: np.random.Generator, pairs: int, ratio: float, mean: float = 0.0, sd: float = 0.015
) -> np.ndarray:
    """Normal differences (J,) with the correlation that the corrected test takes them to have: ratio / (1 + ratio)."""
    shared = ratio / (1 + ratio)
    own = np.sqrt(1 - shared) * random.standard_normal(pairs)
    return mean + sd * (np.sqrt(shared) * random.standard_normal() + own)
