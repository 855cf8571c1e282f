"""Record of the images that a network was trained on, by the SHA-256 of their files, stored in the network's file.

It contains the images to which the network's weights were fitted: by the run itself, and by the runs whose weights it
started from (`--from`, or `--weights` with the file of a run), over any number of runs. It does not contain the images
of a pretrained backbone, which are unknown; validation images, although they select the best epoch; or the training
images of the source model, which are checked separately wherever its maps are read.
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
"""Name of the tensor, uint8 (n, 32), stored beside the weights."""

ENTRY = "training_images"
"""Name of the entry of the file's description that states whether the tensor is complete."""

DIGEST = 32
"""Bytes of a SHA-256."""

Digests = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The images that a network was trained on.

    Attributes:
        digests: uint8 (n, 32), SHA-256 of the image files, each once and in ascending order.
        complete: whether these are all. False if the network, or one whose weights it started from, has no record.

    >>> digests = np.arange(96, dtype=np.uint8).reshape(3, 32)
    >>> images = TrainingImages.of(digests[[1, 0, 1]])
    >>> len(images), images.contains(digests).tolist()
    (2, [True, True, False])
    """

    digests: Digests
    complete: bool = True

    @classmethod
    def of(cls, digests: Digests, complete: bool = True) -> TrainingImages:
        """From digests uint8 (n, 32) in any order, duplicates permitted."""
        if digests.ndim != 2 or digests.shape[1] != DIGEST or digests.dtype != np.uint8:
            raise ValueError(f"digests are {digests.dtype} {digests.shape}, not uint8 (n, {DIGEST})")
        return cls(np.unique(_void(digests)).view(np.uint8).reshape(-1, DIGEST), complete)

    def __len__(self) -> int:
        return len(self.digests)

    def __or__(self, other: TrainingImages) -> TrainingImages:
        """The images of both; complete if both are."""
        return TrainingImages.of(np.concatenate([self.digests, other.digests]), self.complete and other.complete)

    def contains(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Which images are among them, bool (m,), by their digests uint8 (m, 32), using binary search."""
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
"""The record of a file without one, such as those of earlier versions."""


def without_record(state: State) -> State:
    """The tensors of a file without the record.

    Raises:
        ValueError: the record has a wrong shape.
    """
    if TENSOR in state and (len(state[TENSOR].shape) != 2 or state[TENSOR].shape[1] != DIGEST):
        raise ValueError(f"{TENSOR} is of shape {list(state[TENSOR].shape)}, not [n, {DIGEST}]")
    return {name: value for name, value in state.items() if name != TENSOR}


def read_record(file: Path, state: State, description: Mapping[str, Any]) -> TrainingImages:
    """The record of a network's file; `UNKNOWN` if it has none.

    Raises:
        ValueError: the record has a wrong type or shape.
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
    """The entry of a file's description for the record."""
    return {ENTRY: {"images": len(images), "complete": images.complete}}


def _void(digests: Digests) -> npt.NDArray[np.void]:
    """Each digest as one value, (n,), which sorts and compares by all of its bytes."""
    return np.ascontiguousarray(digests).view(f"V{DIGEST}").ravel()
