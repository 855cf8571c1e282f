"""How a run shuffles its training images: any order of all of them, small blocks, or few shards at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saliency_pipeline.memory import usable_memory
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.storage.cache import ShardCache
from saliency_pipeline.storage.settings import shown_size
from saliency_pipeline.training.config import SHARDS_PER_BATCH, TrainConfig, shard_window
from saliency_pipeline.training.data.batches import PairDataset
from saliency_pipeline.training.data.order import Indices, epoch_order, shard_order

BLOCK = 64
"""Rows that are read consecutively where the frames do not fit into memory."""


@dataclass(frozen=True)
class Shuffle:
    """How the rows of an epoch are shuffled: all of them, or contiguous blocks and then the rows of a few blocks.

    Attributes:
        block: rows per block; 0 where a shard is a block; None for any order of all rows.
        window: number of blocks whose rows are mixed.
    """

    block: int | None = None
    window: int = 1

    def order(self, dataset: PairDataset, seed: int, epoch: int) -> Indices:
        """Order of the rows of a data set in an epoch, int64 (N,)."""
        if self.block is None:
            return epoch_order(len(dataset), seed, epoch)
        if self.block:
            return epoch_order(len(dataset), seed, epoch, self.block, self.window)
        return shard_order(dataset.folder.shard_numbers(dataset.rows), seed, epoch, self.window)

    def to_json(self) -> list[int] | None:
        """Block and window as `provenance.json` has them; None for any order."""
        return None if self.block is None else [self.block, self.window]

    @classmethod
    def from_json(cls, value: Any) -> Shuffle:
        """The reverse of `to_json`. Raises TypeError, ValueError or IndexError if it is of another form."""
        return ANY_ORDER if value is None else cls(int(value[0]), int(value[1]))


ANY_ORDER = Shuffle()


def choose_shuffle(pairs: ShardFolder, images: int, config: TrainConfig) -> Shuffle:
    """How a run shuffles; with `--shuffle auto` any order where half the memory holds all frames, otherwise blocks.

    Blocks are much smaller than classes, and a window fills a quarter of the memory: disks read a block sequentially,
    and a batch mixes thousands of blocks.
    """
    if (window := shard_window(config.shuffle)) is not None:
        return Shuffle(0, window)
    memory = usable_memory()
    frame = pairs.header.size**2 * 3 * (1 if pairs.header.encoding == "raw" else 0.15)
    if config.shuffle == "full" or images * frame <= memory / 2:
        return ANY_ORDER
    return Shuffle(BLOCK, max(8, int(memory / 4 / (BLOCK * frame))))


def cache_note(pairs: ShardFolder, positions: Positions, shuffle: Shuffle) -> str | None:
    """A sentence on a cache that is smaller than what an epoch reads, with the remedy; None where it is not.

    Args:
        pairs: the shards.
        positions: positions of all images of an epoch, int64 (N,).
        shuffle: how they are shuffled.
    """
    touched = pairs.objects(np.unique(pairs.shard_numbers(positions)).tolist())
    if not touched:
        return None
    total, limit = sum(each.bytes for each in touched), ShardCache().limit()
    if total <= limit:
        return None
    # one more is fetched while these are read
    fit = max(1, limit // max(each.bytes for each in touched) - 1)
    if shuffle.block == 0 and shuffle.window <= fit:
        effect = "every epoch fetches each shard again"
    else:
        effect = (
            "shards are fetched again and again; raise --cache-size, or use --shuffle "
            f"blocks={min(SHARDS_PER_BATCH, fit)}, with which every epoch fetches each once"
        )
    return f"an epoch reads {shown_size(total)} of shards, and the cache holds {shown_size(limit)}: {effect}"
