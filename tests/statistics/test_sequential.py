"""Levels of planned looks: published boundaries, a twin by simulation, and the edges."""

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import standard_error
from saliency_pipeline.statistics.sequential import information, levels

# R: gsDesign(k, test.type = 2, alpha = 0.025, sfu = sfLDOF); ldbounds: ldBounds(iuse = c(1, 1))
PUBLISHED = {
    2: [2.9626, 1.9686],
    3: [3.7103, 2.5114, 1.9930],
    4: [4.3326, 2.9631, 2.3590, 2.0141],
    5: [4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
}


@pytest.mark.parametrize("looks", PUBLISHED)
def test_equally_spaced_looks_have_the_published_boundaries(looks):
    nominal = levels([7 * look for look in range(1, looks + 1)], 0.0)
    assert stats.norm.isf(np.array(nominal) / 2) == pytest.approx(PUBLISHED[looks], abs=2e-4)


def test_a_single_look_has_all_of_alpha():
    assert levels([10], 0.25) == [0.05]
    assert levels([10], 0.25, alpha=0.01) == [0.01]


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("looks", [[5, 10, 15, 20, 25], [6, 7, 30], [10, 50]])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_a_brownian_motion_crosses_as_often_as_alpha(looks, ratio, alpha):
    share = np.array([information(pairs, ratio) for pairs in looks]) / information(looks[-1], ratio)
    random = np.random.default_rng(0)
    z = np.cumsum(random.standard_normal((200_000, len(looks))) * np.sqrt(np.diff(share, prepend=0)), 1) / np.sqrt(
        share
    )
    crossed = 2 * stats.norm.sf(abs(z)) < levels(looks, ratio, alpha=alpha)
    assert crossed.any(1).mean() == pytest.approx(alpha, abs=4 * np.sqrt(alpha / 200_000))
    # and until each look as often as is to be spent, on either side
    spent = 4 * stats.norm.sf(stats.norm.isf(alpha / 4) / np.sqrt(share))
    until = np.logical_or.accumulate(crossed, 1).mean(0)
    assert until == pytest.approx(spent, abs=4 * np.sqrt(alpha / 200_000))


def test_means_of_more_and_more_pairs_are_correlated_as_the_docstring_derives():
    ratio, few, many = 0.25, 5, 20
    random, shared = np.random.default_rng(1), ratio / (1 + ratio)
    differences = np.sqrt(shared) * random.standard_normal((100_000, 1)) + np.sqrt(1 - shared) * random.standard_normal(
        (100_000, many)
    )
    means = differences[:, :few].mean(1), differences.mean(1)
    assert np.corrcoef(*means)[0, 1] == pytest.approx(
        np.sqrt(information(few, ratio) / information(many, ratio)), abs=0.01
    )
    assert means[1].std() == pytest.approx(standard_error(np.sqrt(1 - shared), many, ratio), rel=0.02)


def test_looks_close_together_cost_little():
    nominal = levels(list(range(6, 31)), 0.25)
    assert len(nominal) == 25
    assert all(0 < level < 0.05 for level in nominal)
    assert levels([1, 100_000], 0.0) == [0.0, pytest.approx(0.05)]


@pytest.mark.parametrize("looks", [[], [0, 5], [5, 5], [10, 5]])
def test_looks_without_new_pairs_are_refused(looks):
    with pytest.raises(SalpipeError, match="must have more pairs than the one before; plan fewer looks"):
        levels(looks, 0.25)
