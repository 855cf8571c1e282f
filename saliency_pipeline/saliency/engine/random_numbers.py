"""Random numbers of methods: they depend on the frame's key and the purpose, never on batches, threads or restarts."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(key: str, *purpose: str | int) -> np.random.Generator:
    """A generator for one frame and purpose, counter-based (Philox), seeded by SHA-256.

    Args:
        key: name of the frame.
        purpose: method, seed, index; any number of texts and numbers.

    >>> int(generator("cat/1.jpg", "smoothgrad", 0, 3).integers(1000))
    828
    """
    identity = "\0".join(map(str, (*purpose, key))).encode()
    seed = int.from_bytes(hashlib.sha256(identity).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=seed))
