"""Groups of images that belong together, as arrays of group numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Places = npt.NDArray[np.int64]


def leaders(groups: npt.NDArray[np.integer]) -> Places:
    """Index of the first image of each image's group, (n,) int64: its own if it has no duplicate before it.

    Args:
        groups: (n,) equal numbers for duplicates; below 0 for an image that has none.

    >>> leaders(np.array([7, -1, 7, -1, 3])).tolist()
    [0, 1, 0, 3, 4]
    """
    alone = -1 - np.arange(len(groups))
    _, first, which = np.unique(np.where(groups < 0, alone, groups), return_index=True, return_inverse=True)
    return first[which].astype(np.int64)


def united(*groupings: npt.NDArray[np.integer]) -> Places:
    """Merge several groupings of the same images: connected components of all of them.

    Args:
        groupings: (n,) each, at least one: equal numbers for images of one group, below 0 for an image without one.

    Returns:
        (n,) int64, the index of the first image of each image's group.

    >>> united(np.array([5, 5, -1, -1, 7]), np.array([-1, 3, 3, 8, -1])).tolist()
    [0, 0, 0, 3, 4]
    """
    count = len(groupings[0])
    first = np.concatenate([leaders(numbers) for numbers in groupings])
    links = coo_array((np.ones(len(first), np.bool_), (first, np.tile(np.arange(count), len(groupings)))), (count,) * 2)
    return leaders(connected_components(links, directed=False)[1])


def several(numbers: Places) -> tuple[int, int]:
    """Number of images in groups of at least two, and number of such groups.

    Args:
        numbers: (n,) equal for images of one group.

    >>> several(np.array([0, 0, 2, 3, 3, 3]))
    (5, 2)
    """
    _, sizes = np.unique(numbers, return_counts=True)
    return int(sizes[sizes > 1].sum()), int((sizes > 1).sum())
