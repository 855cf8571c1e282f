"""How a run shuffles its training images: any order of all of them, small blocks, or few shards at a time."""

from __future__ import annotations

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

Shuffle = tuple[int, int] | None
"""Rows per block and blocks per window, 0 rows where a block is a shard; None for any order of all rows."""


def choose_shuffle(pairs: ShardFolder, images: int, config: TrainConfig) -> Shuffle:
    """How a run shuffles; with `--shuffle auto` any order where half the memory holds all frames, otherwise blocks.

    Blocks are much smaller than classes, and a window fills a quarter of the memory: disks read a block sequentially,
    and a batch mixes thousands of blocks.
    """
    if (window := shard_window(config.shuffle)) is not None:
        return 0, window
    memory = usable_memory()
    frame = pairs.header.size**2 * 3 * (1 if pairs.header.encoding == "raw" else 0.15)
    if config.shuffle == "full" or images * frame <= memory / 2:
        return None
    return BLOCK, max(8, int(memory / 4 / (BLOCK * frame)))


def training_order(dataset: PairDataset, seed: int, epoch: int, shuffle: Shuffle) -> Indices:
    """Order of the rows of a data set in an epoch, int64 (N,)."""
    if shuffle is None:
        return epoch_order(len(dataset), seed, epoch)
    block, window = shuffle
    if block:
        return epoch_order(len(dataset), seed, epoch, block, window)
    return shard_order(dataset.folder.shard_numbers(dataset.rows), seed, epoch, window)


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
    if shuffle is not None and not shuffle[0] and shuffle[1] <= fit:
        effect = "every epoch fetches each shard again"
    else:
        effect = (
            "shards are fetched again and again; raise --cache-size, or use --shuffle "
            f"blocks={min(SHARDS_PER_BATCH, fit)}, with which every epoch fetches each once"
        )
    return f"an epoch reads {shown_size(total)} of shards, and the cache holds {shown_size(limit)}: {effect}"
