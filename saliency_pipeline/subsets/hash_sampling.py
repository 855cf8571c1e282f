"""Lots: a seeded random number for every name, the same everywhere. What is decided by lot stands elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Lots = npt.NDArray[np.uint64]


def lots(seed: int, purpose: str, names: Iterable[str]) -> Lots:
    """A number in [0, 2**64) for every name: the first eight bytes of BLAKE2b over purpose, seed and name.

    It depends on nothing else: not on the machine, the order in which files are found, or the other names. Lots of
    different purposes or seeds have nothing to do with one another. Users hold sets drawn with them: they never change.

    Args:
        seed: what the user may vary.
        purpose: what is decided by these lots, without a line break.
        names: valid UTF-8.

    Returns:
        (n,) uint64.

    >>> lots(0, "draw", ["a", "b"]).tolist() == [int(lots(0, "draw", [name])[0]) for name in "ab"]
    True
    """
    start = hashlib.blake2b(f"{purpose} {seed}\n".encode(), digest_size=8)

    def drawn(name: str) -> bytes:
        state = start.copy()
        state.update(name.encode())
        return state.digest()

    return np.frombuffer(b"".join(map(drawn, names)), ">u8").astype(np.uint64)


def ranks(pools: npt.NDArray[np.int64], lots: Lots) -> npt.NDArray[np.int64]:
    """How many of its pool have a lower lot than each: 0 for the first of every pool.

    Args:
        pools: (n,) int64, at least 0: which pool each belongs to.
        lots: (n,) uint64; of equal ones the first is the lower.

    Returns:
        (n,) int64.

    >>> ranks(np.array([0, 0, 1, 0]), np.array([7, 3, 9, 5], np.uint64)).tolist()
    [2, 0, 0, 1]
    """
    order = np.lexsort((lots, pools))
    pool = pools[order]
    found = np.empty(len(pools), np.int64)
    found[order] = np.arange(len(pools)) - np.searchsorted(pool, pool)
    return found
