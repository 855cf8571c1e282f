"""Encoding of maps, and limits of headers."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from saliency_pipeline.shards.schema import (
    ALL_ZERO,
    CONSTANT,
    NON_FINITE,
    MapShape,
    ShardHeader,
    columns,
    decode_maps,
    encode_maps,
    is_method_name,
    is_shard_name,
    shard_name,
)
from tests.shards.examples import header

TINY = np.float32(1e-45)
HUGE = np.finfo(np.float32).max


def slow_encode(values: np.ndarray) -> tuple[np.ndarray, float, int]:
    """One map in double precision, a value at a time."""
    finite = [float(value) if np.isfinite(value) else 0.0 for value in values.ravel()]
    scale = max(abs(value) for value in finite)
    flag = NON_FINITE if not np.isfinite(values).all() else 0
    flag |= ALL_ZERO if scale == 0 else 0
    flag |= CONSTANT if len(set(finite)) == 1 else 0
    ratio = np.array([value / scale if scale else 0.0 for value in finite]).reshape(values.shape)
    return ratio, scale, flag


shapes = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
elements = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, float(TINY), float(HUGE), -float(HUGE)])


@settings(max_examples=400, deadline=None)
@given(npst.arrays(np.float32, shapes, elements=elements))
@example(np.full((1, 1, 2, 2), TINY))
@example(np.array([[[[HUGE, -HUGE, 1e-30]]]], dtype=np.float32))
@example(np.array([[[[np.nan, np.inf, -np.inf]]]], dtype=np.float32))
@example(np.zeros((2, 1, 1, 1), dtype=np.float32))
def test_maps_come_back_within_half_precision(raw):
    before = raw.copy()
    stored, scale, flag = encode_maps(raw)
    np.testing.assert_array_equal(raw, before)
    assert (stored.dtype, scale.dtype, flag.dtype) == (np.float16, np.float32, np.uint8)
    assert np.isfinite(stored).all()
    assert np.abs(stored).max() <= 1
    back = decode_maps(stored, scale)
    assert back.dtype == np.float32
    for row in range(raw.shape[0]):
        for target in range(raw.shape[1]):
            ratio, expected_scale, expected_flag = slow_encode(raw[row, target])
            assert scale[row, target] == expected_scale
            assert flag[row, target] == expected_flag
            np.testing.assert_allclose(stored[row, target], ratio, rtol=0, atol=2**-12)
            clean = np.where(np.isfinite(raw[row, target]), raw[row, target], 0).astype(np.float64)
            # the product is rounded to a float32, which near 0 costs up to half of the smallest one
            bound = 2**-11 * expected_scale + float(TINY)
            assert np.abs(back[row, target] - clean).max() <= bound
            # the greatest magnitude comes back exactly
            assert np.abs(back[row, target]).max() == expected_scale


def test_flags_are_facts_of_their_own():
    maps = np.zeros((5, 1, 2, 2), dtype=np.float32)
    maps[1] = 3
    maps[2, 0, 0, 0] = 3
    maps[3] = np.nan
    maps[4, 0, 1, 1] = np.inf
    maps[4, 0, 0, 0] = -2
    assert encode_maps(maps)[2].ravel().tolist() == [
        ALL_ZERO | CONSTANT,
        CONSTANT,
        0,
        ALL_ZERO | CONSTANT | NON_FINITE,
        NON_FINITE,
    ]


def test_a_map_does_not_depend_on_its_neighbors():
    raw = np.random.default_rng(0).standard_normal((9, 2, 7, 7)).astype(np.float32)
    raw[4, 1, 2, 2] = np.nan
    together = encode_maps(raw)
    for row in range(9):
        for whole, alone in zip(together, encode_maps(raw[row : row + 1]), strict=True):
            np.testing.assert_array_equal(whole[row : row + 1], alone)


def test_encode_takes_any_memory_layout():
    raw = np.random.default_rng(0).standard_normal((7, 5, 2, 3)).astype(np.float32).transpose(3, 2, 0, 1)
    for strided, straight in zip(encode_maps(raw), encode_maps(np.ascontiguousarray(raw)), strict=True):
        np.testing.assert_array_equal(strided, straight)


def test_names_of_shards():
    assert [shard_name(0), shard_name(99999), shard_name(100000)] == [
        "shard-00000.h5",
        "shard-99999.h5",
        "shard-100000.h5",
    ]
    assert all(is_shard_name(shard_name(number)) for number in (0, 7, 123456))
    for name in ("shard-0.h5", "../shard-00000.h5", "shard-00000.h5\n", "tmp.a.1.0.shard-00000.h5", "shard-٠٠٠٠٠.h5"):
        assert not is_shard_name(name)


NAMES = (
    "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean",
    "captum:DeepLift",
    "layercam:layer=features.norm5",
    "a..b+c-1e-05",
)


@pytest.mark.parametrize("method", [*NAMES, "gradient-smilkov", "0" * 200])
def test_a_method_with_parameters_is_named_by_them(method):
    assert is_method_name(method)
    assert header(maps={method: MapShape(1, 1, 1)}).version == ("1.2" if method in NAMES else "1.1")


def test_residuals_and_standard_errors_raise_the_version():
    assert header(maps={"a": MapShape(1, 1, 1, residual=True)}).version == "1.2"
    assert header(maps={"a": MapShape(1, 1, 1, standard_error=True)}).version == "1.3"


@pytest.mark.parametrize("method", ["", "Grad", "a/b", "..", ".a", ":a", "a b", "é", "a\n", "a<b", "a" * 201])
def test_a_method_of_another_name_is_refused(method):
    with pytest.raises(ValueError, match="method"):
        header(maps={method: MapShape(1, 1, 1)})


def test_impossible_headers_are_refused():
    with pytest.raises(ValueError, match="encoding"):
        header(encoding="png")
    with pytest.raises(ValueError, match="size"):
        header(size=0)
    with pytest.raises(ValueError, match="no cells"):
        header(maps={"gradcam": MapShape(1, 0, 7)})
    with pytest.raises(ValueError, match="JSON"):
        header(provenance={"mean": float("nan")})


def test_headers_compare_as_they_are_stored():
    one = ShardHeader("p", {"mean": (0.5, 0.5)}, ["a"], 8, "raw", {"b": MapShape(1, 1, 1), "a": MapShape(1, 2, 2)})
    two = ShardHeader("p", {"mean": [0.5, 0.5]}, ("a",), 8, "raw", {"a": MapShape(1, 2, 2), "b": MapShape(1, 1, 1)})
    assert one == two
    assert one.differences(two) == []
    assert list(one.maps) == ["a", "b"]
    assert one.differences(header()) == ["plan", "provenance", "classes", "size", "maps"]


def test_columns_follow_the_header():
    stored = columns(header(), 6)
    assert stored["image"].shape == (6, 24, 24, 3)
    assert stored["saliency/gradcam/map"].nbytes == 6 * 7 * 5 * 2
    assert "image" not in columns(header("jpeg"), 6)
    assert all(column.shape[0] == 6 for column in stored.values())
