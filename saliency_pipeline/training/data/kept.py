"""Batches without random choices, kept in memory so that they are read and transformed once per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from saliency_pipeline.memory import usable_memory
from saliency_pipeline.training.data.batches import Batch, Prefetcher

MOST = 256 << 20
"""Bytes of batches that are kept at most; several runs may share the memory."""


class KeptBatches:
    """The batches of a prefetcher whose transform makes no random choices, such as those of validation.

    Args:
        source: prepares the batches.
        most: number of bytes that may be kept; larger sets are prepared again in every epoch.
    """

    def __init__(self, source: Prefetcher, most: int | None = None) -> None:
        self.source = source
        self.most = min(MOST, usable_memory() // 16) if most is None else most
        self.batches: list[Batch] | None = None

    def run(self, batches: Sequence[npt.NDArray[np.integer[Any]]]) -> Iterator[Batch]:
        """The batches in order, the same ones in every call; see `Prefetcher.run`.

        Args:
            batches: indices into the data set.
        """
        if self.batches is not None:
            yield from self.batches
            return
        kept: list[Batch] = []
        size = 0
        for batch in self.source.run(batches, 0):
            size += sum(value.nbytes for value in vars(batch).values() if isinstance(value, Tensor))
            if size > self.most:
                kept.clear()
            else:
                kept.append(batch)
            yield batch
        if size <= self.most:
            self.batches = kept
