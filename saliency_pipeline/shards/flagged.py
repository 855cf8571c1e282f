"""Share of all-zero and of constant maps in each class."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO, CONSTANT

ClassFlags = TypedDict("ClassFlags", {"class": str, "images": int, "zero": float | None, "constant": float | None})
"""Name of a class, its number of images, and the shares, in [0, 1], of all-zero and of constant maps; an all-zero map
is constant as well. None for a class without images."""


def flagged_shares(pairs: ShardFolder, method: str | None, target: int = 0) -> list[ClassFlags] | None:
    """The share of all-zero and of constant maps of a method among the labeled images of each class.

    Args:
        pairs: the shards.
        method: method of the maps; None if no maps are read.
        target: which map per image, from 0.

    Returns:
        One entry per class, in label order. None without a method, or without that map of it.

    Raises:
        SalpipeError: the shards hold no maps of the method.
    """
    if method is None or (method in pairs.methods and target >= pairs.header.maps[method].targets):
        return None
    labels, flags = pairs.labels, pairs.flags(method, target)
    rows: list[ClassFlags] = []
    for label, name in enumerate(pairs.classes):
        own = flags[labels == label]
        zero, constant = ((float(np.mean(own & flag > 0)) if len(own) else None) for flag in (ALL_ZERO, CONSTANT))
        rows.append({"class": name, "images": len(own), "zero": zero, "constant": constant})
    return rows
