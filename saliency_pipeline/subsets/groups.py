"""Groups of images that are duplicates of one another, as arrays of numbers. How they are found stands elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


def leaders(groups: npt.NDArray[np.integer]) -> Places:
    """The place of the first image of each image's group, (n,) int64: its own where it has no duplicate before it.

    Args:
        groups: (n,) equal numbers for duplicates; below 0 for an image that has none.

    >>> leaders(np.array([7, -1, 7, -1, 3])).tolist()
    [0, 1, 0, 3, 4]
    """
    alone = -1 - np.arange(len(groups))
    _, first, which = np.unique(np.where(groups < 0, alone, groups), return_index=True, return_inverse=True)
    return first[which].astype(np.int64)
