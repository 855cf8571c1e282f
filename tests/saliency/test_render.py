"""Overlays and contact sheets: alignment, scaling, readability, and captions in any script."""

import numpy as np
import pytest
from skimage import data

from saliency_pipeline.saliency import render
from saliency_pipeline.saliency.render import colors, contact_sheet, normalize, overlay


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return data.astronaut()[100:324, 100:324]


def spot(value: float = 1.0, size: int = 7) -> np.ndarray:
    """A map with one cell, in the upper left quarter, that is not zero."""
    map_ = np.zeros((size, size), dtype=np.float32)
    map_[1, 2] = value
    return map_


def enlarged(map_: np.ndarray, size: int) -> np.ndarray:
    """Bilinear with half-pixel centers, in a slower, less complicated way."""
    resized = np.empty((size, size))
    for axis in np.ndindex(size, size):
        at = [min(max((i + 0.5) * n / size - 0.5, 0), n - 1) for i, n in zip(axis, map_.shape, strict=True)]
        low = [int(a) for a in at]
        high = [min(i + 1, n - 1) for i, n in zip(low, map_.shape, strict=True)]
        y, x = at[0] - low[0], at[1] - low[1]
        top = (1 - x) * map_[low[0], low[1]] + x * map_[low[0], high[1]]
        bottom = (1 - x) * map_[high[0], low[1]] + x * map_[high[0], high[1]]
        resized[axis] = (1 - y) * top + y * bottom
    return resized


def test_a_coarse_map_is_divided_by_its_maximum() -> None:
    map_ = np.random.default_rng(0).random((10, 10), dtype=np.float32) * 37
    np.testing.assert_allclose(normalize(map_), map_ / map_.max(), rtol=1e-6)


def test_a_fine_map_is_clipped_at_its_99th_percentile() -> None:
    map_ = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    normalized = normalize(map_)
    assert normalized.ravel()[9_900] == 1
    assert (normalized == 1).sum() == 100
    np.testing.assert_allclose(normalized.ravel()[:9_900], map_.ravel()[:9_900] / 9_900, rtol=1e-6)


def test_the_minimum_is_not_subtracted() -> None:
    assert normalize(np.full((7, 7), 3, dtype=np.float32)).tolist() == np.ones((7, 7)).tolist()


def test_a_map_with_few_values_is_divided_by_their_maximum() -> None:
    assert normalize(spot(5, size=100)).max() == 1


def test_the_sign_stays() -> None:
    normalized = normalize(np.array([[-4, 2], [0, 1]], dtype=np.float32))
    assert normalized.tolist() == [[-1, 0.5], [0, 0.25]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_count_as_zero(value: float) -> None:
    map_ = spot()
    map_[6, 6] = value
    assert normalize(map_).tolist() == spot().tolist()


@pytest.mark.parametrize("value", [np.float32(1e-45), np.finfo(np.float32).max])
def test_extreme_ranges_neither_warn_nor_overflow(value: np.float32) -> None:
    assert normalize(spot(value)).tolist() == spot().tolist()


def test_an_all_zero_map_leaves_a_muted_photo(photo: np.ndarray) -> None:
    picture = overlay(photo, np.zeros((7, 7), dtype=np.float32))
    assert picture.shape == photo.shape
    assert picture.dtype == np.uint8
    assert 0.7 < picture.mean() / photo.mean() < 0.9
    luma = [image.mean(axis=2).ravel() for image in (picture, photo)]
    assert np.corrcoef(*luma)[0, 1] > 0.98


def test_color_lies_where_the_map_does_and_nowhere_else(photo: np.ndarray) -> None:
    changed = (overlay(photo, spot()) != overlay(photo, np.zeros((7, 7), dtype=np.float32))).any(axis=2)
    rows, columns = np.nonzero(changed)
    # cell (1, 2) of 32 pixels, and half a cell around it into which the interpolation runs
    assert 16 <= rows.min() < rows.max() < 80
    assert 48 <= columns.min() < columns.max() < 112
    assert changed[32:64, 64:96].mean() > 0.95


@pytest.mark.parametrize("shape", [(7, 7), (5, 8), (1, 1), (24, 24)])
def test_maps_are_enlarged_with_half_pixel_centers(shape: tuple[int, int]) -> None:
    map_ = np.random.default_rng(1).random(shape, dtype=np.float32)
    map_ /= map_.max()
    black = np.zeros((24, 24, 3), dtype=np.uint8)
    # over black, fully opaque and in one color the strength is what is left
    expected = np.clip(enlarged(normalize(map_), 24), 0, 1)[..., None]
    picture = overlay(black, map_, alpha=1).astype(float)
    assert np.abs(picture - colors(expected[..., 0].astype(np.float32)) * expected).max() <= 3


def test_the_photo_stays_readable_under_the_strongest_map(photo: np.ndarray) -> None:
    picture = overlay(photo, np.ones((7, 7), dtype=np.float32))
    assert np.corrcoef(picture.mean(axis=2).ravel(), photo.mean(axis=2).ravel())[0, 1] > 0.9


def test_negative_values_are_blue_where_positive_ones_are_red() -> None:
    gray = np.full((70, 70, 3), 128, dtype=np.uint8)
    positive, negative = overlay(gray, spot(3)), overlay(gray, spot(-3))
    assert (positive[..., ::-1] == negative).all()
    red, _, blue = positive[15, 25].tolist()
    assert red > blue + 40


def test_a_map_finer_than_the_frame_is_averaged() -> None:
    black = np.zeros((10, 10, 3), dtype=np.uint8)
    stripes = np.tile(np.array([0, 1], dtype=np.float32), (40, 20))
    picture = overlay(black, stripes)
    assert (picture == picture[0, 0]).all()
    assert picture.max() > 0


@pytest.mark.parametrize("colormap", ["inferno", "magma", "viridis"])
def test_colors_grow_lighter_with_the_value(colormap: render.Colormap) -> None:
    steps = colors(np.linspace(0, 1, 256, dtype=np.float32)[None], colormap)[0]
    lightness = steps @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -1).all()
    assert lightness[-1] > lightness[0] + 100


def test_the_frame_and_the_map_are_left_alone(photo: np.ndarray) -> None:
    frame, map_ = photo.copy(), spot(9)
    overlay(frame, map_)
    assert (frame == photo).all()
    assert (map_ == spot(9)).all()


def tiles(count: int, height: int = 40, width: int = 100) -> list[np.ndarray]:
    return [np.full((height, width, 3), 10 + i, dtype=np.uint8) for i in range(count)]


def test_a_sheet_holds_every_tile_in_order() -> None:
    sheet = contact_sheet(tiles(5), 3, ["one"] * 5)
    assert sheet.dtype == np.uint8
    firsts = {}
    for i in range(5):
        inside = (sheet == 10 + i).all(axis=2)
        assert inside.sum() >= 4_000
        firsts[i] = tuple(np.argwhere(inside)[0])
    assert firsts[0][0] == firsts[1][0] == firsts[2][0] < firsts[3][0] == firsts[4][0]
    assert firsts[0][1] == firsts[3][1] < firsts[1][1] == firsts[4][1] < firsts[2][1]


def ink(sheet: np.ndarray) -> int:
    return int((sheet < 128).all(axis=2).sum())


@pytest.mark.parametrize(
    "caption",
    ["cat", "Vögel", "ΩЖ", "日本", "a\u0301", "a\x00b\x07", "\ud800", "\U0010ffff", "🙂", "\u202eabc", "a\nb\nc"],
)
def test_captions_of_any_letters_are_rendered(caption: str) -> None:
    white = [np.full((40, 100, 3), 255, dtype=np.uint8)]
    assert ink(contact_sheet(white, 1, [caption])) > 0


def test_without_other_fonts_letters_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_SYSTEM_FONTS", ("no such font.ttf",))
    white = [np.full((40, 100, 3), 255, dtype=np.uint8)]
    assert (contact_sheet(white, 1, ["Vögel 日"]) == contact_sheet(white, 1, ["Vogel ?"])).all()


def test_long_captions_end_in_an_ellipsis_within_their_tile() -> None:
    white = [np.full((40, 100, 3), 255, dtype=np.uint8)] * 2
    sheet = contact_sheet(white, 2, ["W" * 100_000, ""])
    columns = np.nonzero((sheet < 128).all(axis=2).any(axis=0))[0]
    assert columns.max() <= 12 + 100


def test_a_caption_that_fits_is_left_whole() -> None:
    white = [np.full((40, 100, 3), 255, dtype=np.uint8)]
    assert (contact_sheet(white, 1, ["short"]) != contact_sheet(white, 1, ["sho…"])).any()


@pytest.mark.parametrize(
    ("pictures", "columns", "captions"),
    [([], 1, []), (tiles(2), 0, ["", ""]), (tiles(2), 1, [""]), ([*tiles(1), *tiles(1, width=9)], 1, ["", ""])],
)
def test_impossible_sheets_are_refused(pictures: list[np.ndarray], columns: int, captions: list[str]) -> None:
    with pytest.raises(ValueError, match="tiles"):
        contact_sheet(pictures, columns, captions)
