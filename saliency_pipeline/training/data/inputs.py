"""Network inputs: batches on the device of the network, with normalized images."""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.training.data.batches import Batch


class Inputs:
    """Moves batches to a device and normalizes them there, so that one byte per value is moved instead of four.

    Args:
        preprocessing: mean and standard deviation of images in [0, 1].
        device: device of the network.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        self.scale, self.shift = (v.view(1, 3, 1, 1).to(device) for v in preprocessing.scale_and_shift(255))

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images float32 (B, 3, S, S) in channels_last strides, maps float32 (B, 1, S, S) or None, labels int64."""
        images, labels = self._moved(batch.images), self._moved(batch.labels)
        maps = None if batch.maps is None else self._moved(batch.maps)
        return torch.addcmul(self.shift, images.float(), self.scale), maps, labels

    def _moved(self, values: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return values
        return values.pin_memory().to(self.device, non_blocking=True)
