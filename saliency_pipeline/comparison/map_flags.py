"""Shares of maps that carry no information: all-zero and constant ones, per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO, CONSTANT


def flagged_shares(pairs: ShardFolder, method: str | None, target: int = 0) -> list[dict[str, Any]] | None:
    """The share of all-zero and of constant maps of a method among the labelled images of each class.

    Args:
        pairs: the shards.
        method: whose maps; None where none are read.
        target: which map per image, from 0.

    Returns:
        Per class, in label order, `class`, `images`, `zero` and `constant`; shares in [0, 1], an all-zero map is
        constant as well, None for a class without images. None without a method.

    Raises:
        SalpipeError: the shards hold no maps of the method.
    """
    if method is None:
        return None
    labels, flags = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    for number in range(len(pairs.shards)):
        shard = pairs.shard(number)
        labels = np.concatenate([labels, shard.labels])
        flags = np.concatenate([flags, shard.flags(method)[:, target]])
    rows = []
    for label, name in enumerate(pairs.classes):
        own = flags[labels == label]
        zero, constant = ((float(np.mean(own & flag > 0)) if len(own) else None) for flag in (ALL_ZERO, CONSTANT))
        rows.append({"class": name, "images": len(own), "zero": zero, "constant": constant})
    return rows
