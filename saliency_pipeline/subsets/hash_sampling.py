"""Hash sampling: a seeded random number per name, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hashes(seed: int, purpose: str, names: Iterable[str]) -> Hashes:
    """A number in [0, 2**64) for every name: the first eight bytes of BLAKE2b over purpose, seed and name.

    It depends on nothing else: not on the machine, the order of files, or the other names. Hashes of
    different purposes or seeds are independent. They never change, since users keep subsets sampled with them.

    Args:
        seed: the user's seed.
        purpose: name of the decision these hashes are for, without a line break.
        names: valid UTF-8.

    Returns:
        (n,) uint64.

    >>> hashes(0, "draw", ["a", "b"]).tolist() == [int(hashes(0, "draw", [name])[0]) for name in "ab"]
    True
    """
    start = hashlib.blake2b(f"{purpose} {seed}\n".encode(), digest_size=8)

    def digest(name: str) -> bytes:
        state = start.copy()
        state.update(name.encode())
        return state.digest()

    return np.frombuffer(b"".join(map(digest, names)), ">u8").astype(np.uint64)


def ranks(pools: npt.NDArray[np.int64], hashes: Hashes) -> npt.NDArray[np.int64]:
    """Rank of each hash within its pool: 0 for the lowest of every pool.

    Args:
        pools: (n,) int64, at least 0: the pool of each.
        hashes: (n,) uint64; of equal ones the first is the lower.

    Returns:
        (n,) int64.

    >>> ranks(np.array([0, 0, 1, 0]), np.array([7, 3, 9, 5], np.uint64)).tolist()
    [2, 0, 0, 1]
    """
    order = np.lexsort((hashes, pools))
    pool = pools[order]
    result = np.empty(len(pools), np.int64)
    result[order] = np.arange(len(pools)) - np.searchsorted(pool, pool)
    return result
