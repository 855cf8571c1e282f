"""Verdicts err as seldom as they say, in simulated comparisons of arms between which there is nothing to choose."""

import numpy as np
import pytest

from saliency_pipeline.statistics.contrast import ROPE, corrected_t
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import detectable, standard_error
from tests.statistics.simulation import correlated, cross_validated, rates, said

# three standard errors of a share of 0.05 in 2,000
NOMINAL = 0.065


@pytest.mark.slow
def test_of_2000_comparisons_of_nothing_at_most_one_in_twenty_finds_something() -> None:
    found = rates(2000, images=100)
    assert found.wrong <= NOMINAL
    # the test that takes folds for independent finds something three times as often as it says
    assert found.naive > 0.13


@pytest.mark.slow
def test_nor_does_it_where_folds_draw_few_images_each() -> None:
    """Fifteen a class of a pool of 240, drawn anew for every fold: what `--per-class 15` does."""
    assert rates(1000, images=600, per_class=15).wrong <= NOMINAL


def test_with_the_correlation_it_is_made_for_it_errs_in_one_of_twenty() -> None:
    random, ratio = np.random.default_rng(3), 0.25
    differences = np.array([correlated(random, 10, ratio) for _ in range(4000)])
    error = differences.std(1, ddof=1) * np.sqrt(1 / 10 + ratio)
    p = [corrected_t(m, e, 10)[1] for m, e in zip(differences.mean(1), error, strict=True)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.011)


def test_three_arms_are_not_three_chances_to_err() -> None:
    """Three arms held against one reference, all equally good: Holm keeps the chance of any error."""
    random, ratio, family, each = np.random.default_rng(4), 0.25, 0, 0
    for _ in range(2000):
        reference, *arms = (correlated(random, 10, ratio) for _ in range(4))
        told = [arm - reference for arm in arms]
        p = [corrected_t(d.mean(), standard_error(d.std(ddof=1), 10, ratio), 10)[1] for d in told]
        family += min(holm(p)) < 0.05
        each += min(p) < 0.05
    assert family / 2000 <= NOMINAL
    assert each / 2000 > 0.08


@pytest.mark.slow
def test_a_difference_of_a_whole_point_is_seldom_called_equivalent() -> None:
    """At the edge of the region half the posterior lies outside, on average; 95 % within it is rare."""
    random, words = np.random.default_rng(5), []
    for _ in range(600):
        words.append(said(correlated(random, 10, 0.25, mean=ROPE, sd=0.004), 0.25))
    assert words.count("equivalent") / 600 <= 0.075


@pytest.mark.slow
def test_what_is_there_is_found_as_often_as_the_power_says() -> None:
    random, ratio, sd = np.random.default_rng(6), 0.25, 0.015
    # the sample's deviation is that of the part that pairs do not share
    effect = detectable(sd / np.sqrt(1 + ratio), 10, ratio)
    words = [said(correlated(random, 10, ratio, mean=effect, sd=sd), ratio) for _ in range(600)]
    assert words.count("better") / 600 == pytest.approx(0.8, abs=0.06)


def test_the_simulation_has_no_favourite() -> None:
    random = np.random.default_rng(7)
    differences = np.array([cross_validated(random, 60).mean() for _ in range(300)])
    assert abs(differences.mean()) < 3 * differences.std() / np.sqrt(300)
