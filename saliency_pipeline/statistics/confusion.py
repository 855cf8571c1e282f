"""Confusion counts: images per pair of true and predicted class, as sparse pairs, in JSON and as an excerpt.

The full matrix of 3,000 classes has 9 million cells, nearly all 0; pairs that occur are never more than the images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MATRIX_CLASSES = 300
"""Largest number of classes for which JSON and the figure hold the whole matrix."""

EXCERPT_CLASSES = 80
"""Number of classes in an excerpt, where there are more than `MATRIX_CLASSES`."""

Pairs = npt.NDArray[np.int64]
"""(K, 3) int64, sorted: true class, predicted class, and number of images with both, at least 1."""

Stored = list[list[int]] | dict[str, list[int]]
"""Form in JSON: rows of the matrix, or the columns of `Pairs`."""

_COLUMNS = ("true", "answered", "images")


class Excerpt(NamedTuple):
    """Part of a confusion matrix.

    Attributes:
        classes: int64 (k,), ascending: the classes shown.
        matrix: int64 (k, k), images of the row's class that are predicted as the column's.
        images: int64 (k,), all images of the row's class, including those predicted as a class that is left out.
    """

    classes: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]


def count_pairs(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Pairs:
    """Count the images of every pair of true and predicted class that occurs.

    Args:
        labels: (N,) int64 >= 0, the true classes.
        predicted: (N,) int64 >= 0, the predicted classes.

    >>> count_pairs(np.array([0, 2, 2, 2]), np.array([0, 1, 2, 1])).tolist()
    [[0, 0, 1], [2, 1, 2], [2, 2, 1]]
    """
    classes = 1 + int(max(labels.max(initial=0), predicted.max(initial=0)))
    codes, counts = np.unique(labels * classes + predicted, return_counts=True)
    return np.stack([codes // classes, codes % classes, counts], axis=1).astype(np.int64)


def to_json(pairs: Pairs, classes: int) -> Stored:
    """Rows of the matrix, or for more than `MATRIX_CLASSES` classes the columns `true`, `answered` and `images`.

    >>> to_json(np.array([[0, 1, 7]]), 2), to_json(np.array([[0, 1, 7]]), 500)
    ([[0, 7], [0, 0]], {'true': [0], 'answered': [1], 'images': [7]})
    """
    if classes <= MATRIX_CLASSES:
        rows: list[list[int]] = _matrix(pairs, classes).tolist()
        return rows
    return dict(zip(_COLUMNS, pairs.T.tolist(), strict=True))


def from_json(value: Stored) -> Pairs:
    """The inverse of `to_json`."""
    if isinstance(value, dict):
        return np.array([value[name] for name in _COLUMNS], np.int64).T
    matrix = np.array(value, np.int64)
    rows, columns = np.nonzero(matrix)
    return np.stack([rows, columns, matrix[rows, columns]], axis=1)


def excerpt(pairs: Pairs, classes: int) -> Excerpt:
    """The whole matrix, or with more than `MATRIX_CLASSES` classes that of the classes confused most.

    Pairs of different classes are taken by falling number of images until there are `EXCERPT_CLASSES` classes; where
    fewer are confused at all, the first of the others follow.
    """
    images = np.bincount(pairs[:, 0], pairs[:, 2], classes).astype(np.int64)
    if classes <= MATRIX_CLASSES:
        return Excerpt(np.arange(classes), _matrix(pairs, classes), images)
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    order = np.argsort(-wrong[:, 2], kind="stable")
    # each class once, in the order of its first appearance
    candidates = dict.fromkeys(wrong[order, :2].ravel().tolist()) | dict.fromkeys(range(EXCERPT_CLASSES))
    chosen = np.sort(np.fromiter(candidates, np.int64)[:EXCERPT_CLASSES])
    both = pairs[np.isin(pairs[:, 0], chosen) & np.isin(pairs[:, 1], chosen)]
    both[:, :2] = np.searchsorted(chosen, both[:, :2])
    return Excerpt(chosen, _matrix(both, len(chosen)), images[chosen])


def _matrix(pairs: Pairs, classes: int) -> npt.NDArray[np.int64]:
    matrix = np.zeros((classes, classes), np.int64)
    matrix[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
    return matrix
