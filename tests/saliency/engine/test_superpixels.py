"""Superpixels of images whose segments are evident."""

import numpy as np

from saliency_pipeline.saliency.engine.superpixels import superpixel_grid, superpixels
from tests.saliency.networks import photos


def test_a_frame_of_one_color_is_a_grid() -> None:
    segments = superpixels(np.full((24, 24, 3), 90, np.uint8), 8)
    assert segments.dtype == np.int64
    assert np.array_equal(segments, np.arange(24)[:, None] // 12 * 4 + np.arange(24) // 6)


def test_segments_follow_an_edge() -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:, 13:] = (255, 200, 0)
    segments = superpixels(frame, 4)
    assert not set(segments[:, :13].ravel()) & set(segments[:, 13:].ravel())


def test_segments_of_a_photograph_are_few_compact_and_always_the_same() -> None:
    frame = photos(112)[0]
    segments = superpixels(frame, 50)
    assert 40 <= len(np.unique(segments)) <= 49 == np.prod(superpixel_grid(50))
    assert segments.max() < 49
    assert np.array_equal(superpixels(frame.copy(), 50), segments)
    colors, sizes = frame.reshape(-1, 3).astype(float), np.bincount(segments.ravel(), minlength=49)
    down, across = np.divmod(np.arange(112 * 112), 112)
    grid = (down * 7 // 112 * 7 + across * 7 // 112).astype(int)

    def scatter(labels: np.ndarray) -> float:
        """Mean square distance from the mean color of the segment."""
        counts = np.maximum(np.bincount(labels, minlength=49), 1)
        means = np.stack([np.bincount(labels, c, minlength=49) for c in colors.T], 1) / counts[:, None]
        return float(np.square(colors - means[labels]).sum(1).mean())

    assert scatter(segments.ravel()) < 0.6 * scatter(grid)
    # no segment reaches beyond the cells around its own
    for segment in np.flatnonzero(sizes):
        rows, columns = np.nonzero(segments == segment)
        assert np.ptp(rows) < 48
        assert np.ptp(columns) < 48


def test_grids_have_no_more_cells_than_asked_for() -> None:
    for count in range(1, 200):
        rows, columns = superpixel_grid(count)
        assert 0.5 * count < rows * columns <= count
