"""Metrics of how concentrated maps are, with slow twins and cases that can be computed by hand."""

import numpy as np
import pytest
import scipy.stats

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.concentration import Complexity, Mass, Sparseness

N = 28 * 28


def measure(maps):
    """(sparseness, complexity, mass) of maps (B, h, w), each (B,)."""
    maps = np.asarray(maps, np.float32)
    none = np.zeros(len(maps), np.int64)
    batch = ImageBatch([""] * len(maps), np.zeros((len(maps), 32, 32, 3), np.uint8), none, none, [])
    ask = Inquiry(batch, "gradcam", maps)
    return [next(iter(metric.values(ask).values())) for metric in (Sparseness(), Complexity(), Mass())]


def gini_twin(p):
    return np.abs(p[:, None] - p).sum() / (2 * p.size * p.sum())


def mass_twin(p):
    falling, cells = np.sort(p)[::-1] / p.sum(), 0
    while falling[: cells + 1].sum() < 0.9:
        cells += 1
    return (cells + (0.9 - falling[:cells].sum()) / falling[cells]) / p.size


def test_all_agree_with_their_twins():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((6, 28, 28)).astype(np.float32)
    maps[2] = np.maximum(maps[2], 0)
    maps[3] **= 15
    sparseness, complexity, mass = measure(maps)
    for i, p in enumerate(np.abs(maps).reshape(6, -1).astype(np.float64)):
        assert sparseness[i] == pytest.approx(gini_twin(p), abs=1e-6)
        assert complexity[i] == pytest.approx(scipy.stats.entropy(p) / np.log(N), abs=1e-6)
        assert mass[i] == pytest.approx(mass_twin(p), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -5.0, 3e38, 1e-45])
@pytest.mark.parametrize("side", [7, 28, 100])
def test_constant_maps(value, side):
    values = measure(np.full((1, side, side), value))
    assert np.concatenate(values).tolist() == pytest.approx([0, 1, 0.9], abs=1e-12)


def test_a_single_cell():
    maps = np.zeros((1, 28, 28))
    maps[0, 3, 4] = -7
    assert np.concatenate(measure(maps)).tolist() == pytest.approx([1 - 1 / N, 0, 0.9 / N])


def test_half_of_the_cells():
    maps = np.zeros((1, 28, 28))
    maps[0, :14] = 2
    assert np.concatenate(measure(maps)).tolist() == pytest.approx([0.5, np.log(N / 2) / np.log(N), 0.45])


def test_maps_of_all_sizes_are_compared_on_one_grid():
    maps = np.random.default_rng(1).standard_normal((2, 28, 28))
    pixels = maps.repeat(8, axis=1).repeat(8, axis=2)
    np.testing.assert_allclose(measure(pixels), measure(maps), atol=1e-6)
    # signs do not cancel within a cell
    pixels[:, ::2] *= -1
    np.testing.assert_allclose(measure(pixels), measure(maps), atol=1e-6)


def test_values_depend_neither_on_the_scale_nor_on_the_batch():
    maps = np.random.default_rng(2).standard_normal((5, 7, 7)).astype(np.float32)
    maps[3] = 0
    whole = np.array(measure(maps))
    np.testing.assert_array_equal(whole, np.array([measure(each[None]) for each in maps])[:, :, 0].T)
    np.testing.assert_allclose(whole, measure(maps * np.float32(1e30)), atol=1e-6)
