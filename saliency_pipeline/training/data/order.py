"""Order of the rows in an epoch, batches, and the rows of each rank: pure functions of seed and epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError

Indices = npt.NDArray[np.int64]


def run_seed(seed: int, fold: int | None) -> int:
    """Random seed of a run: subsampling, initialization, order and augmentation depend on it.

    Folds are split with `seed` itself. If everything else used it as well, the runs of one cross-validation would share
    random state that no other run has, and their spread would be too small.

    >>> run_seed(7, None), run_seed(7, 1) != run_seed(7, 2)
    (7, True)
    """
    if fold is None:
        return seed
    return int(np.random.SeedSequence([seed, fold]).generate_state(1, np.uint32)[0])


def epoch_order(count: int, seed: int, epoch: int, block: int | None = None, window: int = 8) -> Indices:
    """Order of an epoch: a permutation that depends on the arguments alone, so that a run resumes by (epoch, step).

    Neither the number of workers or ranks nor NumPy's version changes it: rows are sorted by 64-bit numbers of
    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which NumPy promises never to change.

    With `block` it is a block shuffle, for data that exceed the memory: contiguous blocks of rows are permuted, and the
    rows are then permuted within windows of blocks. A window is read from few places of the disk and fits into memory.
    Not all orders are possible then: a batch mixes a window rather than the whole data set. Data stored class by class
    therefore give batches of few classes unless a window holds many blocks, each much smaller than a class.

    Args:
        count: number of rows.
        seed: at least 0.
        epoch: at least 0.
        block: rows per block, at least 1; None permutes all rows.
        window: blocks per window, at least 1.

    Returns:
        int64 (count,), a permutation of `range(count)`.

    Raises:
        SalpipeError: a negative seed or epoch, or an empty block or window.

    >>> sorted(epoch_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    if seed < 0 or epoch < 0:
        raise SalpipeError(f"seed {seed} and epoch {epoch}: neither may be negative")
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    if block is None:
        return _sorted_by(bits.random_raw(count))
    if block < 1 or window < 1:
        raise SalpipeError(f"block {block} and window {window}: a block holds at least 1 row, a window 1 block")
    starts = block * _sorted_by(bits.random_raw(-(-count // block)))
    rows = (starts[:, None] + np.arange(block)).reshape(-1)
    rows = rows[rows < count]
    windows = np.arange(count) // (block * window)
    return rows[np.lexsort((bits.random_raw(count), windows))].astype(np.int64)


def shard_order(shards: npt.NDArray[np.integer[Any]], seed: int, epoch: int, window: int) -> Indices:
    """Order of an epoch in which few shards are read at a time: shards are permuted, and rows within windows of shards.

    It depends on the arguments alone, as `epoch_order` does; a batch mixes the rows of at most `window` shards, or of
    two windows where one ends in it.

    Args:
        shards: (N,) the shard of each row.
        seed: at least 0.
        epoch: at least 0.
        window: shards per window, at least 1.

    Returns:
        int64 (N,), a permutation of `range(N)`.

    Raises:
        SalpipeError: a negative seed or epoch, or an empty window.

    >>> shard_order(np.array([0, 0, 1, 1, 2, 2]), seed=0, epoch=0, window=1).tolist()
    [0, 1, 2, 3, 5, 4]
    """
    if seed < 0 or epoch < 0 or window < 1:
        raise SalpipeError(f"seed {seed}, epoch {epoch} and window {window}: at least 0, 0 and 1")
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    numbers, shard_of = np.unique(shards, return_inverse=True)
    place = np.empty(len(numbers), np.int64)
    place[_sorted_by(bits.random_raw(len(numbers)))] = np.arange(len(numbers))
    return np.lexsort((bits.random_raw(len(shards)), place[shard_of] // window)).astype(np.int64)


def epoch_batches(order: npt.NDArray[np.integer[Any]], batch_size: int) -> list[npt.NDArray[np.integer[Any]]]:
    """Split an order into the fewest batches of at most `batch_size` rows, all of nearly the same size.

    No small last batch remains, on which batch normalization would compute poor statistics.

    Args:
        order: (N,) integers.
        batch_size: at least 1.

    Returns:
        ceil(N / batch_size) arrays whose sizes differ by at most 1.

    Raises:
        SalpipeError: the batch size is less than 1.

    >>> [len(batch) for batch in epoch_batches(np.arange(33), 32)]
    [17, 16]
    """
    if batch_size < 1:
        raise SalpipeError(f"batch size {batch_size}: use at least 1")
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []


def rank_slice(batch: npt.NDArray[np.integer[Any]], rank: int, world: int) -> npt.NDArray[np.integer[Any]]:
    """The rows of a global batch that one of `world` ranks takes; the parts are disjoint and together the batch.

    >>> [rank_slice(np.arange(5), rank, 2).tolist() for rank in range(2)]
    [[0, 2, 4], [1, 3]]
    """
    return batch[rank::world]


def _sorted_by(numbers: npt.NDArray[np.uint64]) -> Indices:
    return np.argsort(numbers, kind="stable").astype(np.int64)
