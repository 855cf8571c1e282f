"""Means over images and the sign test, compared with slower versions and with cases computed by hand."""

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.statistics import means
from saliency_pipeline.statistics.images import RESAMPLES, constant_interval
from saliency_pipeline.statistics.means import means_of_images
from saliency_pipeline.statistics.signs import sign_test


def test_intervals_are_percentiles_of_resampled_means() -> None:
    values = np.random.default_rng(1).random((7, 2))
    values[2:5, 1] = np.nan
    result = means_of_images(values)
    random, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES // 100):
        draws += list(random.integers(0, 7, (100, 7)))
    for column in range(2):
        resampled = []
        for chosen in draws:
            own = values[chosen, column]
            own = own[~np.isnan(own)]
            if len(own):
                resampled.append(own.mean())
        low, high = np.percentile(resampled, [2.5, 97.5])
        assert result.low[column] == pytest.approx(low, rel=1e-12)
        assert result.high[column] == pytest.approx(high, rel=1e-12)
        own = values[~np.isnan(values[:, column]), column]
        assert result.mean[column] == pytest.approx(own.mean())
        assert result.error[column] == pytest.approx(stats.sem(own))
        assert result.count[column] == len(own)


def test_intervals_cover_the_true_mean() -> None:
    values = np.random.default_rng(2).exponential(size=(100, 400))
    result = means_of_images(values)
    covered = float(((result.low <= 1) & (result.high >= 1)).mean())
    assert 0.89 < covered < 0.97


def test_a_quantity_does_not_depend_on_the_others() -> None:
    values = np.random.default_rng(3).random((20, 3))
    both, alone = means_of_images(values), means_of_images(values[:, 1:2])
    assert both.low[1] == pytest.approx(alone.low[0], rel=1e-12)
    assert both.high[1] == pytest.approx(alone.high[0], rel=1e-12)


def test_equal_values_have_the_interval_of_another_share_of_images() -> None:
    result = means_of_images(np.full((50, 1), 0.2), -1.0, 3.0)
    assert result.mean[0] == 0.2
    assert (result.low[0], result.high[0]) == pytest.approx(constant_interval(0.2, 50, -1.0, 3.0))
    assert result.low[0] == pytest.approx(0.2 - 1.2 * 3.8415 / 53.8415, abs=1e-4)
    unbounded = means_of_images(np.full((50, 1), 0.2))
    assert np.isnan(unbounded.low[0])
    assert np.isnan(unbounded.high[0])
    assert unbounded.error[0] == 0


def test_without_values_nothing_is_defined_and_nothing_warns() -> None:
    for values in (np.full((4, 1), np.nan), np.zeros((0, 1))):
        result = means_of_images(values, 0.0, 1.0)
        assert np.isnan([result.mean[0], result.low[0], result.high[0], result.error[0]]).all()
        assert result.count[0] == 0


def test_intervals_of_very_many_images_are_the_normal_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random((1500, 1))
    resampled = means_of_images(values)
    monkeypatch.setattr(means, "LARGE", 1499)
    normal = means_of_images(values)
    assert normal.high[0] - normal.mean[0] == pytest.approx(1.96 * normal.error[0], rel=1e-4)
    assert normal.low[0] == pytest.approx(resampled.low[0], abs=0.2 * normal.error[0])


def test_normal_intervals_stay_within_the_possible_values() -> None:
    values = np.zeros((3000, 2))
    values[0, 0] = 1.0
    result = means_of_images(values, 0.0, 1.0)
    assert result.low[0] == 0.0
    assert result.high[0] == pytest.approx(1 / 3000 + 1.96 * result.error[0], rel=1e-4)


def test_images_without_any_value_change_nothing() -> None:
    values = np.random.default_rng(5).random((20, 2))
    padded = np.concatenate([values, np.full((3000, 2), np.nan)])
    one, other = means_of_images(values), means_of_images(padded)
    assert (one.low == other.low).all()
    assert (one.count == other.count).all()


def test_sign_test_by_hand() -> None:
    assert sign_test(10, 0) == pytest.approx(2 / 1024)
    assert sign_test(7, 3) == pytest.approx(2 * (120 + 45 + 10 + 1) / 1024)
    assert sign_test(3, 6) == pytest.approx(2 * (1 + 9 + 36 + 84) / 512)
    assert sign_test(4, 4) == 1.0
