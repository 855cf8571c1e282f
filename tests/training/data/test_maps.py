"""Maps for a network: up-sampled like torch does, normalized like NumPy would, and never NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import NORMALIZATIONS
from saliency_pipeline.training.data.maps import normalize, upsample

FINITE = st.floats(-(2.0**127), 2.0**127, width=32)
SHAPES = st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 12), st.integers(1, 12))


def twin(maps: np.ndarray, how: str) -> np.ndarray:
    """Each map by itself in float64, straight from the formulas."""
    out = np.zeros(maps.shape)
    for new, x in zip(out, maps.astype(np.float64), strict=True):
        low, high = x.min(), x.max()
        if high == low:
            continue
        if how == "minmax":
            new[:] = (x - low) / (high - low)
        elif how == "max":
            new[:] = np.maximum(x, 0) / high if high > 0 else 0
        else:
            p99 = np.percentile(x, 99)
            new[:] = np.clip((x - low) / ((p99 if p99 > low else high) - low), 0, 1)
    return out


def test_upsampling_is_known_in_one_dimension():
    """Cell centers at 1/4 and 3/4 of four pixels: between them the values are interpolated, beyond them kept."""
    maps = torch.tensor([[[0.0, 8.0], [0.0, 8.0]]])
    expected = torch.tensor([0.0, 2.0, 6.0, 8.0]).expand(1, 1, 4, 4)
    torch.testing.assert_close(upsample(maps, 4), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "size"), [((3, 7, 7), 224), ((2, 1, 1), 5), ((2, 5, 9), 32), ((1, 32, 32), 32)])
def test_upsampling_is_torchs_bilinear_of_each_map(shape, size):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    whole = upsample(maps, size)
    assert (whole.shape, whole.dtype) == ((shape[0], 1, size, size), torch.float32)
    for one, expected in zip(whole, maps, strict=True):
        alone = functional.interpolate(expected[None, None], (size, size), mode="bilinear", align_corners=False)
        torch.testing.assert_close(one, alone[0], rtol=0, atol=1e-6)
    assert whole.amax() <= maps.amax() + 1e-6
    assert whole.amin() >= maps.amin() - 1e-6


@pytest.mark.parametrize("how", ["minmax", "max", "p99"])
@pytest.mark.parametrize("side", [1, 2, 7, 33, 224])
def test_normalization_follows_its_formula(how, side):
    random = np.random.default_rng(side)
    maps = (
        random.standard_normal((4, 1, side, side), dtype=np.float32) * 10.0 ** np.arange(-6, 6, 3)[:, None, None, None]
    )
    maps[0] = abs(maps[0])
    maps[1] = -abs(maps[1]) - 1e-9
    maps = maps.astype(np.float32)
    result = normalize(torch.from_numpy(maps), how).numpy()
    np.testing.assert_allclose(result, twin(maps, how), rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=300)
@given(arrays.arrays(np.float32, SHAPES, elements=FINITE), st.sampled_from(["minmax", "max", "p99"]))
def test_every_finite_map_comes_to_lie_in_its_range(maps, how):
    before = maps.copy()
    result = normalize(torch.from_numpy(maps), how)
    assert result.shape == maps.shape
    assert result.isfinite().all()
    assert result.amin() >= 0
    assert result.amax() <= 1
    np.testing.assert_array_equal(maps, before)
    for one, x in zip(result, maps, strict=True):
        magnitude = abs(x).max()
        if x.min() == x.max():
            assert (one == 0).all()
        elif x.max() / 2 - x.min() / 2 > 1e-4 * magnitude and (how != "max" or x.max() > 0):
            assert one.amax() == 1
            assert how == "max" or one.amin() == 0


@pytest.mark.parametrize("how", ["minmax", "max", "p99"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1 / 3, -0.7, 1e-30, 3e38, -3e38])
def test_a_constant_map_gives_zeros_after_upsampling_too(how, value):
    """Up-sampling rounds: min and max of what was constant differ, and their difference must not be blown up."""
    for size in (224, 37):
        maps = upsample(torch.full((2, 7, 5), value), size)
        assert not normalize(maps, how).any()
    # whether a processor rounds there or not
    maps[:, :, ::2] = torch.nextafter(torch.tensor(value), torch.tensor(0.0))
    assert not normalize(maps, how).any()


@pytest.mark.parametrize("how", ["minmax", "p99"])
def test_the_least_step_that_is_stored_is_kept(how):
    """Float16 values near 1 lie 2**-11 apart."""
    maps = torch.full((1, 7, 7), 1 - 2**-11)
    maps[0, 3, 3] = 1
    result = normalize(upsample(maps, 224), how)
    assert (result.amin(), result.amax()) == (0, 1)
    assert (result > 0).float().mean() < 0.1


def test_a_spike_of_less_than_a_percent_is_its_own_percentile():
    maps = torch.zeros(1, 1, 224, 224)
    maps[0, 0, 100, 50] = 3
    maps[0, 0, 0, 0] = 1.5
    result = normalize(maps, "p99")
    assert (result[0, 0, 100, 50], result[0, 0, 0, 0], result.sum()) == (1, 0.5, 1.5)


def test_evidence_against_counts_as_none_under_max():
    for against in (-4.0, -3e38):
        maps = torch.tensor([[[[against, 0.0, 1.0, 2.0]]]])
        assert normalize(maps, "max").flatten().tolist() == [0, 0, 0.5, 1]


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_signed_maps_are_normalized_by_magnitude_so_that_0_stays_0(how):
    maps = torch.randn((3, 1, 9, 9), generator=torch.Generator().manual_seed(1))
    maps[:, :, 4] = 0
    before = maps.clone()
    signed = normalize(maps, how, signed=True)
    assert torch.equal(maps, before)
    if how in ("minmax", "p99"):
        assert torch.equal(signed, normalize(maps.abs(), how))
        assert not signed[:, :, 4].any()
        assert not torch.equal(signed, normalize(maps, how))
    else:
        # max keeps what speaks for the class, none keeps the sign
        assert torch.equal(signed, normalize(maps, how))


def test_none_leaves_maps_as_they_are():
    maps = torch.tensor([[[[-4.0, 7.0]]]])
    assert normalize(maps, "none").tolist() == maps.tolist()


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_memory_layout_does_not_matter(how):
    maps = torch.randn(3, 1, 10, 14, generator=torch.Generator().manual_seed(1))
    expected = normalize(maps, how)
    torch.testing.assert_close(normalize(maps.transpose(2, 3), how).transpose(2, 3), expected, rtol=0, atol=0)
    wide = torch.randn(3, 5, 20, 14, generator=torch.Generator().manual_seed(2))
    wide[:, 2:3, ::2] = maps
    torch.testing.assert_close(normalize(wide[:, 2:3, ::2], how), expected, rtol=0, atol=0)
    assert normalize(maps[:0], how).shape == (0, 1, 10, 14)


@pytest.mark.slow
def test_the_percentile_has_no_limit_of_size():
    """torch.quantile refuses more than 2**24 values per map."""
    maps = torch.arange(2**24 + 4096, dtype=torch.float32).view(1, 1, 4097, 4096)
    result = normalize(maps, "p99")
    assert float((result == 1).float().mean()) == pytest.approx(0.01, abs=1e-4)


def test_the_error_for_an_unknown_normalization_lists_all():
    with pytest.raises(SalpipeError, match="'mean' is unknown; use one of minmax, max, p99, none"):
        normalize(torch.zeros(1, 1, 2, 2), "mean")
