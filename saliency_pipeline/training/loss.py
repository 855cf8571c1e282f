"""The loss of a training step: cross entropy, and what a use of maps adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import replaced_output
from saliency_pipeline.models.trained.pooled import PooledLayer, find_pooled_layer
from saliency_pipeline.models.trained.two_branch import NetworkSpec
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import Batch
from saliency_pipeline.training.data.mixed import mixed_cross_entropy
from saliency_pipeline.uses.attention import AttentionLoss


class Loss:
    """The loss of the images of a batch.

    Args:
        config: options of the run.
        network: the network that is trained, with its layers as they will run.
        weights: weight of each class, float32 (C,); None for 1.
        layer: from `supervised_layer`.

    Attributes:
        weights: as above.
    """

    def __init__(
        self, config: TrainConfig, network: nn.Module, weights: Tensor | None, layer: PooledLayer | None
    ) -> None:
        self.weights, self.smoothing = weights, config.label_smoothing
        self._use = None if layer is None else _attention_loss(config)
        if layer is not None:
            self._layer = network.get_submodule(f"backbone.{layer.name}")
            self._head = network.get_submodule(f"backbone.{layer.linear}")
        self._features: Tensor | None = None

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Context in which a forward pass leaves what the loss needs besides the logits.

        The hook exists only here: neither validation nor checkpoints see it. A compiled network would not call it.
        """
        if self._use is None:
            yield
            return
        with replaced_output(self._layer, self._keep):
            yield

    def _keep(self, features: Tensor) -> None:
        self._features = features

    def __call__(self, logits: Tensor, batch: Batch, targets: Tensor, maps: Tensor | None) -> Tensor:
        """Sum of the losses of the images, each with the weight of its class; a scalar, float32.

        Args:
            logits: (B, classes), float32, of a pass within `capturing`.
            batch: the batch.
            targets: its labels on the device, int64 (B,).
            maps: its maps on the device, float32 (B, 1, S, S) or None.
        """
        losses = mixed_cross_entropy(logits, targets, batch.mixed, self.weights, self.smoothing)
        if self._use is not None:
            features, self._features = self._features, None
            assert features is not None
            assert maps is not None
            terms = self._use.penalties(features, self._head.get_parameter("weight")[targets], maps)
            losses = losses + (terms if self.weights is None else terms * self.weights[targets]).sum()
        return losses

    def total_weight(self, labels: npt.NDArray[np.int64]) -> float:
        """Sum of the class weights of some images: the divisor of a sum of losses."""
        return float(len(labels)) if self.weights is None else float(self.weights[torch.from_numpy(labels)].sum())


def supervised_layer(config: TrainConfig, network: nn.Module, spec: NetworkSpec) -> PooledLayer | None:
    """The layer whose class activation map an attention loss supervises; None without such a loss.

    Raises:
        SalpipeError: the network's head is not average pooling and one linear layer.
    """
    use = _attention_loss(config)
    if use is None:
        return None
    layer = find_pooled_layer(network.get_submodule("backbone"), spec.size)
    if layer is None or layer.linear is None:
        raise SalpipeError(
            f"--use {use.name}: the head of {spec.backbone} is not average pooling of a grid and one linear layer at "
            f"frames of {spec.size}x{spec.size}; use a backbone such as resnet50, or larger frames"
        )
    return layer


def _attention_loss(config: TrainConfig) -> AttentionLoss | None:
    """The use of maps, if it is an attention loss that counts."""
    use = config.map_use
    return use if isinstance(use, AttentionLoss) and use.reads_maps else None
