"""The images that a network was trained on, by the SHA-256 of their files: what its file records of them.

An image counts where the network's weights were fitted to it and its label: by the run itself, or by the runs with
whose weights it began (`--from`, or `--weights` with the file of a run), however long that chain is. What does not
count: the images of a pretrained backbone, of which nothing is recorded; validation images, although they choose the
best epoch; and the images of the network that made the maps, which is checked by itself wherever its maps are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saliency_pipeline.models.source.weights import State, read_state

TENSOR = "training.sha256"
"""Name of the tensor, uint8 (n, 32), that stands beside the weights."""

ENTRY = "training_images"
"""Name of the entry of the file's description that says whether the tensor is complete."""

DIGEST = 32
"""Bytes of a SHA-256."""

Digests = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The images that a network was trained on.

    Attributes:
        digests: uint8 (n, 32), SHA-256 of the image files, each once and in ascending order.
        complete: whether these are all. Not where the network, or one with whose weights it began, has no record.

    >>> digests = np.arange(96, dtype=np.uint8).reshape(3, 32)
    >>> images = TrainingImages.of(digests[[1, 0, 1]])
    >>> len(images), images.contains(digests).tolist()
    (2, [True, True, False])
    """

    digests: Digests
    complete: bool = True

    @classmethod
    def of(cls, digests: Digests, complete: bool = True) -> TrainingImages:
        """From digests uint8 (n, 32) in any order, of which some may occur several times."""
        if digests.ndim != 2 or digests.shape[1] != DIGEST or digests.dtype != np.uint8:
            raise ValueError(f"digests are {digests.dtype} {digests.shape}, not uint8 (n, {DIGEST})")
        return cls(np.unique(_void(digests)).view(np.uint8).reshape(-1, DIGEST), complete)

    def __len__(self) -> int:
        return len(self.digests)

    def __or__(self, other: TrainingImages) -> TrainingImages:
        """The images of both; complete where both are."""
        return TrainingImages.of(np.concatenate([self.digests, other.digests]), self.complete and other.complete)

    def contains(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Which of some images are among them, bool (m,), by their digests uint8 (m, 32): a binary search for each."""
        wanted, own = _void(digests), _void(self.digests)
        if not len(own) or not len(wanted):
            return np.zeros(len(wanted), np.bool_)
        places = np.minimum(np.searchsorted(own, wanted), len(own) - 1)
        # compared as bytes: void arrays compare slowly and with warnings
        among: npt.NDArray[np.bool_] = (self.digests[places] == digests.reshape(-1, DIGEST)).all(axis=1)
        return among

    def tensors(self) -> dict[str, Tensor]:
        """The record as it is stored beside a network's weights."""
        return {TENSOR: torch.from_numpy(self.digests.copy())}


UNKNOWN = TrainingImages(np.zeros((0, DIGEST), np.uint8), complete=False)
"""Of a network whose file records nothing, as files of earlier versions."""


def without_record(state: State) -> State:
    """The tensors of a file but for the record.

    Raises:
        ValueError: the record is of another shape.
    """
    if TENSOR in state and (len(state[TENSOR].shape) != 2 or state[TENSOR].shape[1] != DIGEST):
        raise ValueError(f"{TENSOR} is of shape {list(state[TENSOR].shape)}, not [n, {DIGEST}]")
    return {name: value for name, value in state.items() if name != TENSOR}


def read_record(file: Path, state: State, description: Mapping[str, Any]) -> TrainingImages:
    """The record of a network's file; `UNKNOWN` where there is none.

    Args:
        file: the file.
        state: its tensors, unread.
        description: what the file says beside them.

    Raises:
        ValueError: it is of another type or shape.
        SalpipeError: it cannot be read.
    """
    if TENSOR not in state:
        return UNKNOWN
    without_record(state)
    digests = read_state(file, {TENSOR: state[TENSOR]})[TENSOR]
    if digests.dtype != torch.uint8:
        raise ValueError(f"{TENSOR} is of {str(digests.dtype).removeprefix('torch.')}, not uint8")
    entry = description.get(ENTRY)
    return TrainingImages.of(digests.numpy(), isinstance(entry, dict) and entry.get("complete") is True)


def describe(images: TrainingImages) -> dict[str, Any]:
    """The entry of a file's description that belongs to the record."""
    return {ENTRY: {"images": len(images), "complete": images.complete}}


def _void(digests: Digests) -> npt.NDArray[np.void]:
    """Each digest as one value, (n,), which sorts and compares by all of its bytes."""
    return np.ascontiguousarray(digests).view(f"V{DIGEST}").ravel()
