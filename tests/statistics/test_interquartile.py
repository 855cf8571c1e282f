"""Interquartile means: scipy's trimmed mean, strata that stay apart, and the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.interquartile import interquartile, interquartile_mean

datasets = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=8), min_size=1, max_size=4)


@given(datasets)
def test_it_is_the_trimmed_mean_of_all_runs(values):
    result = interquartile([np.array(each) for each in values])
    assert result.value == pytest.approx(stats.trim_mean(np.concatenate([np.array(each) for each in values]), 0.25))
    assert min(map(min, values)) - 1e-12 <= result.low <= result.high <= max(map(max, values)) + 1e-12


def test_a_single_bad_run_does_not_move_it():
    runs = np.array([0.70, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.77])
    worse = runs.copy()
    worse[0] = 0.0
    assert interquartile([worse]).value == interquartile([runs]).value == pytest.approx(0.735)


def test_runs_are_resampled_within_each_data_set():
    # no spread within data sets, much between them: the interval is a point
    result = interquartile([np.full(5, 0.2), np.full(5, 0.6), np.full(5, 0.9)])
    assert result.low == result.value == result.high
    together = interquartile([np.repeat([0.2, 0.6, 0.9], 5)])
    assert together.value == result.value
    assert together.high - together.low > 0.1


def test_the_interval_is_that_of_a_slow_twin():
    random = np.random.default_rng(0)
    first, second = random.normal(0.6, 0.02, 10), random.normal(0.8, 0.02, 10)
    means = [
        stats.trim_mean(np.concatenate([random.choice(first, 10), random.choice(second, 10)]), 0.25)
        for _ in range(1500)
    ]
    result = interquartile([first, second])
    assert (result.low, result.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=3e-3)


def test_paired_differences_may_be_given():
    result = interquartile([np.array([-0.01, 0.02, 0.03, 0.1])])
    assert result.value == pytest.approx(0.025)


def test_rows_are_averaged_one_by_one():
    assert interquartile_mean(np.array([[0.0, 1, 2, 9], [4, 4, 4, 4]])) == pytest.approx([1.5, 4])


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "without runs"), ([np.array([])], "without runs"), ([np.array([np.inf])], "not finite")],
)
def test_other_scores_are_refused(values, message):
    with pytest.raises(SalpipeError, match=message):
        interquartile(values)
