"""Distance of the initial network of a run from plain transfer: what an arm changes before training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.build import head_tensors
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.two_branch import Baseline, FourChannels, NetworkSpec
from saliency_pipeline.training.data.batches import Prefetcher
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.precision import disable_dropout

IMAGES = 16
NEUTRAL = 1e-4
"""Relative distance below which a start is called neutral: rounding."""

Start = dict[str, dict[str, float]]


@torch.no_grad()
def start_distance(network: nn.Module, spec: NetworkSpec, inputs: Inputs, validation: Prefetcher) -> Start | None:
    """Distance of a network from its own backbone without maps, the baseline with the same initial weights.

    Both see the same images: up to 16 of the validation images, without augmentation, in float32. A distance is
    |own - backbone| / |backbone|, Euclidean norms over all images and values. The network is left unchanged.

    Returns:
        `features` (what the classifier reads) and `logits`, each with `eval` (running statistics of BatchNorm) and
        `train` (statistics of the batch; dropout is off). None for a network without a second branch.
    """
    if isinstance(network, Baseline):
        return None
    count = len(validation.dataset)
    rows = np.unique(np.linspace(0, count - 1, min(IMAGES, count)).astype(np.int64))
    images, maps, _ = inputs(validation.prepare(rows, 0))
    with own_random_state():
        head = head_tensors(*find_source(spec.backbone))[0].rpartition(".")[0]
    twin = copy.deepcopy(network)
    distances: Start = {"features": {}, "logits": {}}
    for mode in ("eval", "train"):
        twin.train(mode == "train")
        disable_dropout(twin)
        # statistics of the first pass must not reach the second
        state = copy.deepcopy(twin.state_dict())
        own = _values(twin, head, images, maps)
        twin.load_state_dict(state)
        plain = _plain(twin, head, images)
        twin.load_state_dict(state)
        for name, with_maps, without in zip(("features", "logits"), own, plain, strict=True):
            norm = float(without.norm())
            distances[name][mode] = float((with_maps - without).norm()) / max(norm, 1e-12)
    return distances


def is_neutral(start: Start | None) -> bool:
    """Return whether a network starts where the baseline starts, up to rounding."""
    return start is None or all(distance <= NEUTRAL for part in start.values() for distance in part.values())


def _plain(network: nn.Module, head: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of the backbone without the maps."""
    if isinstance(network, FourChannels):
        # a fourth channel of zeros adds nothing to the first convolution
        return _values(network, head, images, torch.zeros_like(images[:, :1]))
    backbone = network.get_submodule("backbone")
    with _captured(backbone, head) as features:
        logits = backbone(images)
    return features[0].flatten(1).float(), logits.float()


def _values(network: nn.Module, head: str, images: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features and logits of the network with its maps."""
    with _captured(network.get_submodule("backbone"), head) as features:
        logits = network(images, maps)
    return features[0].flatten(1).float(), logits.float()


@contextmanager
def _captured(backbone: nn.Module, head: str) -> Iterator[list[Tensor]]:
    """Context that collects the inputs of the classifier."""
    captured: list[Tensor] = []
    handle = backbone.get_submodule(head).register_forward_pre_hook(lambda _module, inputs: captured.append(inputs[0]))
    try:
        yield captured
    finally:
        handle.remove()
