"""`PairLoader`: batches of pairs, epoch after epoch, in one order for all processes and from any position."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.data.batches import Batch, Prefetcher
from saliency_pipeline.training.data.order import epoch_batches, rank_slice
from saliency_pipeline.training.shuffle import ANY_ORDER, Shuffle

_POSITION = ("epoch", "step")


class PairLoader:
    """Batches of training images for a training loop of one's own; that of `salpipe train` uses it as well.

    Iterating gives the rest of the current epoch; the next iteration begins the next epoch. The order of an epoch, and
    every augmentation, depends on seed and epoch alone, and each process takes its part of every batch. So a loop that
    saves `state_dict()` with its network continues with the very batches that it would have had, also with another
    number of processes. Only images that are mixed (`--use mix`) are mixed with others of the same process.

    Args:
        pairs: prepares the batches: data set, transform and batches ahead.
        batch_size: images per batch, of all processes together.
        seed: random seed of the order, at least 0; augmentations have that of the transform.
        shuffle: how an epoch is shuffled; see `Shuffle`.
        rank: number of this process.
        world: number of processes.

    Attributes:
        epoch: number of the current epoch, from 0.
        step: number of its batches that were handed out.

    Raises:
        SalpipeError: no such rank, batch size or seed.

    Example:
        ::

            loader = PairLoader(Prefetcher(PairDataset(ShardFolder("shards"), rows, "gradcam"), Transform()), 32)
            while loader.epoch < 10:
                for batch in loader:
                    ...
                torch.save({"network": network.state_dict(), "loader": loader.state_dict()}, "checkpoint.pt")
    """

    def __init__(
        self,
        pairs: Prefetcher,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: Shuffle = ANY_ORDER,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not 0 <= rank < world:
            raise SalpipeError(f"rank {rank} of {world} processes: ranks are 0 to {world - 1}")
        if batch_size < 1 or seed < 0:
            raise SalpipeError(f"batch size {batch_size} and seed {seed}: use at least 1, and 0")
        self.pairs, self.batch_size, self.seed, self.shuffle = pairs, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = self.step = 0

    def __len__(self) -> int:
        """Number of batches of a whole epoch."""
        return -(-len(self.pairs.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The remaining batches of the current epoch, the images of this process alone; then the next epoch begins.

        Raises:
            IntegrityError: a shard is damaged.
        """
        for _, batch in self.steps():
            yield batch

    def steps(self) -> Iterator[tuple[npt.NDArray[np.integer[Any]], Batch]]:
        """As `__iter__`, each batch with the indices into the data set of the images of all processes."""
        order = self.shuffle.order(self.pairs.dataset, self.seed, self.epoch)
        left = epoch_batches(order, self.batch_size)[self.step :]
        own = [rank_slice(indices, self.rank, self.world) for indices in left]
        for indices, batch in zip(left, self.pairs.run(own, self.epoch), strict=True):
            self.step += 1
            yield indices, batch
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out, and what decides the order; JSON-serializable."""
        # whether the loop has asked for more after the last batch of an epoch makes no difference
        whole = 0 < len(self) == self.step
        dataset = self.pairs.dataset
        return {
            "epoch": self.epoch + whole,
            "step": 0 if whole else self.step,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle.to_json(),
            "shards": dataset.folder.identity,
            "images": hashlib.sha256(dataset.rows.astype("<i8").tobytes()).hexdigest(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position of `state_dict`.

        Raises:
            SalpipeError: it is that of another order: other shards, images, batch size, seed or shuffle.
        """
        for name, value in self.state_dict().items():
            if name not in _POSITION and state.get(name) != value:
                raise SalpipeError(f"a loader's state with other {name.replace('_', ' ')}: make the loader as it was")
        epoch, step = (state.get(name) for name in _POSITION)
        if not (isinstance(epoch, int) and isinstance(step, int) and epoch >= 0 and 0 <= step < max(1, len(self))):
            raise SalpipeError(f"a loader's state at epoch {epoch}, step {step}: there is no such step")
        self.epoch, self.step = epoch, step
