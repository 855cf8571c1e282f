"""Areas and times of curves: closed forms, invariances."""

import numpy as np
import pytest

from saliency_pipeline.statistics.contrast import evaluate, verdict
from saliency_pipeline.statistics.speed import (
    area,
    carried,
    censored_median,
    faster,
    own_level,
    restricted_time,
    time_differences,
)

EPOCHS = 30


def test_the_area_is_the_mean_height_of_the_curve():
    curve = np.array([0.1, 0.3, 0.5, 0.7] + [0.9] * 10)
    assert area(curve, 4) == pytest.approx(0.4)
    assert area(curve) == pytest.approx((0.2 + 0.4 + 0.6 + 0.8 + 5 * 0.9) / 9)
    assert area(np.full(20, 0.25)) == pytest.approx(0.25)
    assert area(np.array([0.6])) == 0.6


def test_runs_that_never_get_there_count_as_later_than_any_that_did():
    assert censored_median([1, 2, None]) == 2
    assert censored_median([4, None, None]) is None
    assert censored_median([2, 3]) == 2.5
    assert faster([3, None, 5, None], [4, 7, 5, None]) == (1, 1, 2)


def curves(rate: float, final: float = 0.8, *, seed: int = 0, noise: float = 0.01, pairs: int = 10) -> list[np.ndarray]:
    """Exponential approaches to a final accuracy, with noise per epoch."""
    random = np.random.default_rng(seed)
    rise = final - (final - 0.2) * np.exp(-rate * np.arange(1, EPOCHS + 1) / 4)
    return list(rise + noise * random.standard_normal((pairs, EPOCHS)))


def test_time_is_interpolated_between_epochs():
    curve = np.array([0.2, 0.4, 0.8, 0.5])
    assert restricted_time(curve, 0.4, 4) == 2
    assert restricted_time(curve, 0.5, 4) == pytest.approx(2.25)
    assert restricted_time(curve, 0.8, 4) == 3
    # at level after the first epoch, or before
    assert restricted_time(curve, 0.2, 4) == restricted_time(curve, 0.1, 4) == 1
    # never, or not within the budget
    assert restricted_time(curve, 0.81, 4) == 4
    assert restricted_time(curve, 0.8, 2) == 2
    assert restricted_time(curve[:2], 0.8, 30) == 30


@pytest.mark.parametrize(("images", "twentieths"), [(53, 1), (85, 3), (119, 4)])
def test_a_level_that_rounding_puts_above_a_score_is_reached(images, twentieths):
    """95 % of 20 k right images are 19 k images: in floating point, here a little more."""
    level, score = own_level([np.array([20 * twentieths / images])]), 19 * twentieths / images
    assert level > score
    assert restricted_time(np.array([0.0, score, 0.0, 1.0]), level, 4) == pytest.approx(2)


def test_the_own_level_is_95_percent_of_the_mean_final_accuracy():
    assert own_level([np.array([0.9, 0.5]), np.array([0.1, 0.7])]) == pytest.approx(0.95 * 0.6)


def test_curves_that_were_stopped_are_carried_forward():
    curve = np.array([0.2, 0.5, 0.6])
    assert carried(curve, 5).tolist() == [0.2, 0.5, 0.6, 0.6, 0.6]
    assert carried(curve, 2) is not curve
    assert carried(curve, 2).tolist() == curve.tolist()
    whole = curves(1.0)
    stopped = [np.append(own[:22], own[-1]) for own in whole]
    np.testing.assert_array_equal(time_differences(whole, stopped, EPOCHS), 0)


def test_a_constant_shift_is_higher_early_and_no_faster():
    """Three points more at every epoch: a higher area, and the same time to the own level."""
    first = curves(1.0)
    for shift in (0.03, -0.03, 0.1):
        second = [curve + shift for curve in first]
        high = evaluate(np.array([area(c) for c in first]), np.array([area(c) for c in second]), 0.25)
        assert verdict(high, high.p) == ("better" if shift > 0 else "worse")
        times = evaluate(np.zeros(10), time_differences(first, second, EPOCHS), 0.25, rope=0)
        assert verdict(times, times.p) == "no difference"


def test_a_constant_factor_is_no_faster():
    first = curves(1.0)
    times = time_differences(first, [1.05 * curve for curve in first], EPOCHS)
    assert abs(times.mean()) < 1e-9


@pytest.mark.parametrize("final", [0.8, 0.85, 0.7])
def test_a_faster_approach_is_found_wherever_it_ends(final):
    times = evaluate(np.zeros(10), time_differences(curves(1.0), curves(1.5, final, seed=1), EPOCHS), 0.25, rope=0)
    assert times.mean < -2
    # fewer epochs are worse: the sign is that of epochs
    assert verdict(times, times.p) == "worse"
    back = time_differences(curves(1.5, final, seed=1), curves(1.0), EPOCHS)
    assert back.mean() == pytest.approx(-times.mean, abs=0.3)


def test_a_decline_at_the_end_is_no_faster():
    """Equal until epoch 20, then six points are lost: nothing was learned earlier."""
    first = curves(1.0, noise=0.005)
    second = [curve - 0.06 * np.clip((np.arange(EPOCHS) - 19) / 10, 0, 1) for curve in first]
    own = np.array([restricted_time(c, own_level([c]), EPOCHS) for c in second])
    assert own.mean() < np.mean([restricted_time(c, own_level([c]), EPOCHS) for c in first]) - 1
    times = evaluate(np.zeros(10), time_differences(first, second, EPOCHS), 0.25, rope=0)
    assert verdict(times, times.p) in ("undecided", "no difference")


def test_the_reading_less_favorable_to_a_difference_counts():
    first = [np.array([0.0, 0.40, 0.76, 0.80]), np.array([0.0, 0.50, 0.78, 0.80])]
    second = [np.array([0.0, 0.80, 0.89, 1.00]), np.array([0.0, 0.80, 0.90, 1.00])]

    def times(curves, levels):
        return np.array([restricted_time(curve, level, 4) for curve, level in zip(curves, levels, strict=True)])

    reference = times(first, [0.76, 0.76])
    share, points = times(second, [0.95, 0.95]) - reference, times(second, [0.96, 0.96]) - reference
    assert 0 < share.mean() < points.mean()
    np.testing.assert_allclose(time_differences(first, second, 4), share)
    # exchanged, the second arm is faster, and by the reading of points less so
    faster_by = time_differences(second, first, 4)
    assert -share.mean() <= faster_by.mean() < 0


def test_an_arm_against_itself_takes_as_long():
    own = curves(1.0, noise=0.05)
    np.testing.assert_array_equal(time_differences(own, own, EPOCHS), 0)
