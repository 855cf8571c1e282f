"""Power, against its definition and simulation."""

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.statistics.power import MINIMUM_PAIRS, detectable, pairs_needed, resolved, standard_error


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 24, 0.0105])
@pytest.mark.parametrize(("sd", "ratio", "effect"), [(0.01, 0.25, 0.02), (0.02, 0.05, 0.03), (0.005, 0.25, 0.01)])
def test_so_many_pairs_suffice_and_one_fewer_does_not(sd, ratio, effect, alpha):
    pairs = pairs_needed(sd, ratio, effect, alpha=alpha)

    def power(count):
        error = standard_error(sd, count, ratio)
        critical = stats.t.ppf(1 - alpha / 2, count - 1)
        return stats.nct.sf(critical, count - 1, effect / error)

    assert power(pairs) >= 0.8
    assert pairs == 6 or power(pairs - 1) < 0.8
    assert detectable(sd, pairs, ratio, alpha=alpha) <= effect
    assert pairs == 6 or detectable(sd, pairs - 1, ratio, alpha=alpha) > effect


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 24])
def test_power_is_what_simulated_comparisons_find(alpha):
    random, pairs, sd = np.random.default_rng(2), 12, 0.015
    effect = detectable(sd, pairs, 0.0, alpha=alpha)
    differences = effect + sd * random.standard_normal((4000, pairs))
    assert (stats.ttest_1samp(differences, 0, axis=1).pvalue < alpha).mean() == pytest.approx(0.8, abs=0.025)


def test_what_is_detectable_is_larger_at_a_stricter_level():
    plain, of_a_family = detectable(0.02, 10, 0.25), detectable(0.02, 10, 0.25, alpha=0.05 / 24)
    assert of_a_family > 1.5 * plain
    assert pairs_needed(0.02, 0.05, 0.02, alpha=0.05 / 24) > 1.5 * pairs_needed(0.02, 0.05, 0.02)


def test_no_spread_is_that_of_rounding():
    assert resolved(0.0, 0.06) == pytest.approx(0.06 * np.sqrt(2 / 12))
    assert resolved(0.03, 0.06) == 0.03
    assert pairs_needed(0.0, 0.25, 0.01) == MINIMUM_PAIRS
    assert detectable(resolved(0.0, 1 / 750), 10, 0.25) > 0


def test_images_that_all_folds_share_set_a_floor_that_pairs_do_not_lower():
    assert pairs_needed(0.03, 0.25, 0.01) is None
    assert detectable(0.03, 10_000, 0.25) > 0.01
    assert pairs_needed(0.0, 0.25, 0.01) == 6
