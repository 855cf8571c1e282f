"""Superpixels: compact segments of similar color, by k-means on color and position as in SLIC."""

from __future__ import annotations

import math

import cv2
import numpy as np

ROUNDS = 5
COMPACTNESS = 10.0
"""Difference of color, in units of CIE Lab, that counts as much as the distance of two centers."""


def superpixel_grid(count: int) -> tuple[int, int]:
    """Rows and columns of the grid of centers that at most `count` superpixels grow from.

    >>> superpixel_grid(50), superpixel_grid(8)
    ((7, 7), (2, 4))
    """
    rows = math.isqrt(count)
    return rows, count // rows


def superpixels(frame: np.ndarray, count: int) -> np.ndarray:
    """Segments (S, S) int64 of a frame, from 0 to at most `count - 1`; a number may be missing.

    SLIC (Achanta et al., IEEE TPAMI 34(11), 2012): k-means on color in CIE Lab and position, whose centers begin on a
    regular grid; each pixel may belong to one of the nine centers around its cell. Unlike SLIC it moves no centers off
    edges and does not join stray pixels to their surroundings.

    Args:
        frame: (S, S, 3) uint8 RGB.
        count: the largest number of segments.
    """
    rows, columns = superpixel_grid(count)
    size = len(frame)
    color = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64) / COMPACTNESS
    spacing = math.sqrt(size * size / (rows * columns))
    down, across = np.mgrid[:size, :size]
    features = np.concatenate([color, down[..., None] / spacing, across[..., None] / spacing], 2)
    points = features.reshape(-1, features.shape[2])
    segments = (down * rows // size * columns + across * columns // size).ravel()
    # all pixels of a cell have the same candidates: their distances are one small matrix product
    cells = [np.flatnonzero(segments == cell) for cell in range(rows * columns)]
    centers = np.zeros((rows * columns, points.shape[1]))
    for _ in range(ROUNDS):
        sizes = np.bincount(segments, minlength=len(centers))
        sums = [np.bincount(segments, values, minlength=len(centers)) for values in points.T]
        full = sizes > 0
        centers[full] = (np.stack(sums, 1) / np.maximum(sizes, 1)[:, None])[full]
        for cell, pixels in enumerate(cells):
            near = _neighbors(cell, rows, columns)
            # but for the square of each point, which is the same for all centers
            distances = np.square(centers[near]).sum(1) - 2 * points[pixels] @ centers[near].T
            segments[pixels] = near[distances.argmin(1)]
    labels: np.ndarray = segments.reshape(size, size)
    return labels.astype(np.int64)


def _neighbors(cell: int, rows: int, columns: int) -> np.ndarray:
    """The cells of a grid around one of them, and that one."""
    row, column = divmod(cell, columns)
    down = np.arange(max(row - 1, 0), min(row + 2, rows))
    across = np.arange(max(column - 1, 0), min(column + 2, columns))
    neighbors: np.ndarray = (down[:, None] * columns + across).ravel()
    return neighbors
