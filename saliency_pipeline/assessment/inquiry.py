"""What metrics may ask: `ImageBatch` about images, whatever the method; `Inquiry` about the maps of one method."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Protocol, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from saliency_pipeline.figures.pictures import Pixels

Floats = npt.NDArray[np.float32]
X = TypeVar("X")


class Network(Protocol):
    """The source model that made the maps, as far as metrics need it; any number of threads may ask.

    Attributes:
        color: the RGB color, 0 to 255, that is closest to 0 after normalization: the mean color of the training data.
    """

    @property
    def color(self) -> tuple[int, int, int]: ...  # noqa: D102

    def scores(self, frames: Pixels, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Softmax of one class for each of M frames (M, S, S, 3) uint8: (M,) in [0, 1]."""

    def explain(
        self, method: str, frames: Pixels, targets: npt.NDArray[np.int64], keys: Sequence[str]
    ) -> Floats | None:
        """Raw maps (M, h, w) by a method; None where it cannot explain other frames, as of maps from elsewhere."""

    def randomized(self) -> Sequence[Network]:
        """The network with more and more of its weights random, from the last layers on; the last one has all."""


class ImageBatch:
    """B images, whatever the method.

    Attributes:
        keys: names of the images.
        frames: (B, S, S, 3) uint8 RGB.
        targets: (B,) int64, the explained class of the source model; -1 where there is none.
        labels: (B,) int64, index into the classes of the data set; -1 unlabeled.
        boxes: for each image boxes (n, 4) float64 of objects, x0, y0, x1, y1 in pixels of the frame; may be empty.
        network: the source model; None where metrics read maps alone.
    """

    def __init__(
        self,
        keys: Sequence[str],
        frames: Pixels,
        targets: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        boxes: Sequence[npt.NDArray[np.float64]],
        network: Network | None = None,
    ) -> None:
        self.keys, self.frames, self.targets, self.labels = keys, frames, targets, labels
        self.boxes, self.network = boxes, network
        self._kept: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> int:
        """S, side of the frame in pixels."""
        return int(self.frames.shape[1])

    def part(self, rows: slice) -> ImageBatch:
        """Some of the images, as a batch of their own."""
        return ImageBatch(
            self.keys[rows], self.frames[rows], self.targets[rows], self.labels[rows], self.boxes[rows], self.network
        )

    def scores(self, frames: Pixels) -> npt.NDArray[np.float64]:
        """Softmax (B,) of each image's explained class for other frames (B, S, S, 3) uint8."""
        assert self.network is not None
        return self.network.scores(frames, self.targets)

    def clean(self) -> npt.NDArray[np.float64]:
        """Softmax (B,) of each image's explained class for the frames as they are; computed once for all methods."""
        return self.once("clean", lambda: self.scores(self.frames))

    def once(self, key: Hashable, compute: Callable[[], X]) -> X:
        """The value of `compute()`, which is called only the first time, whatever the method."""
        if key not in self._kept:
            self._kept[key] = compute()
        return cast(X, self._kept[key])


class Inquiry:
    """One method's maps of a batch. A metric must neither mix images nor modify an answer.

    Attributes:
        batch: the images.
        method: canonical name of the method.
        maps: (B, h, w) float32, raw; 0 where the network's values were not finite.
        signed: whether negative values speak against the class.
    """

    def __init__(self, batch: ImageBatch, method: str, maps: Floats, signed: bool = False) -> None:
        self.batch, self.method, self.maps, self.signed = batch, method, maps, signed
        self._kept: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def enlarged(self) -> torch.Tensor:
        """The maps (B, S, S) float32 at the size of the frame, bilinear with half-pixel centers."""
        return enlarged(torch.from_numpy(self.maps), self.batch.size)

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Pixels (B, S * S) by falling value of the enlarged map, of equal ones the first in rows first."""
        # the bits of a float, as an integer, rise with it, those of a negative one fall; -0.0 + 0.0 is 0.0. With the
        # pixel in the lower half no two keys are equal, so that the fastest sort is stable: NumPy's of integers
        bits = (self.enlarged.flatten(1) + 0.0).numpy().view(np.int32)
        keys = np.where(bits >= 0, ~bits, bits & np.int32(0x7FFFFFFF)).astype(np.int64) << 32
        keys |= np.arange(keys.shape[1])
        keys.sort(axis=1)
        return keys & 0xFFFFFFFF

    @cached_property
    def mask(self) -> torch.Tensor:
        """The enlarged maps (B, S, S) with the minimum of each as 0 and its maximum as 1; 0 where all are equal."""
        low, high = self.enlarged.amin((1, 2), keepdim=True), self.enlarged.amax((1, 2), keepdim=True)
        return (self.enlarged - low) / torch.where(high > low, high - low, 1.0)

    def explain(self, frames: Pixels) -> Floats | None:
        """Maps (B, h, w) of other frames by the same method, for the same classes and keys; None if it cannot."""
        assert self.batch.network is not None
        return self.batch.network.explain(self.method, frames, self.batch.targets, self.batch.keys)

    def once(self, key: Hashable, compute: Callable[[], X]) -> X:
        """The value of `compute()`, which is called only the first time that a metric asks with this key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return cast(X, self._kept[key])


def enlarged(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Maps (B, h, w) enlarged bilinearly to (B, size, size) float32; smaller ones of larger maps are means of areas.

    Half-pixel centers. A constant map remains constant, so that rounding does not rank its pixels.
    """
    values = maps.float()
    if max(values.shape[1:]) > size:
        result = interpolate(values[:, None], (size, size), mode="area")[:, 0]
    else:
        # four times as fast as torch
        pixels = np.empty((len(values), size, size), np.float32)
        for each, target in zip(values.numpy(), pixels, strict=True):
            cv2.resize(each, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)
        result = torch.from_numpy(pixels)
    constant = values.amin((1, 2)) == values.amax((1, 2))
    result[constant] = values[constant][:, :1, :1]
    return result
