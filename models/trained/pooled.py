"""Attention pooling: before the head, features are averaged with the weights of the map instead of uniformly."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from saliency_pipeline.models.probe import evaluating, is_clean_cut, probe_frames, probe_size, replaced_output

_ROUNDING = 1e-5
_TOLERANCE = 1e-9  # in float64


@dataclass(frozen=True)
class PooledLayer:
    """The last layer with a grid of features, which the head pools over all cells.

    Attributes:
        name: dotted name in the network; its output A is (N, channels, h, w).
        grid: (h, w).
        channels: C.
        linear: the layer with logits = weight mean_hw(A) + bias, where the head is average pooling and one linear
            layer; None for other heads.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    linear: str | None


class Pooled(nn.Module):
    """A backbone whose pooled features are weighted by the map: sum(w A) / sum(w) instead of mean(A).

    After the spatial weights of CroW (Kalantidis et al., arXiv 1512.04065). Features A are multiplied by w / mean(w),
    see `pooling_weights`, so that the backbone's own average pooling gives the weighted mean.

    Args:
        backbone: images (N, 3, S, S) to logits.
        layer: name of the layer whose features are pooled.
    """

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        self._maps: Tensor | None = None
        # a hook, so that tensors keep their names
        backbone.get_submodule(layer).register_forward_hook(self._weighted)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Logits (N, classes)."""
        self._maps = required_maps(maps)
        try:
            logits: Tensor = self.backbone(images)
            return logits
        finally:
            self._maps = None

    def _weighted(self, _module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        if self._maps is None:
            return features  # the backbone is called alone
        weights = pooling_weights(self._maps, (features.shape[2], features.shape[3]))
        return features * weights.to(features.dtype)


def required_maps(maps: Tensor | None) -> Tensor:
    """The maps of a network that needs them."""
    if maps is None:
        raise ValueError("this network needs maps (N, 1, S, S)")
    return maps


def pooling_weights(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Weights of the cells of a grid: maps averaged over each cell, divided by their mean.

    Negative values count as 0. A map that is constant on the grid, all-zero as well, marks no place: its weights are
    exactly 1.

    Args:
        maps: (N, 1, S, S) float32.
        grid: (h, w).

    Returns:
        (N, 1, h, w) float32, >= 0, with mean 1.

    >>> pooling_weights(torch.tensor([[[[0.0, 1.0], [1.0, 2.0]]]]), (2, 2)).flatten().tolist()
    [0.0, 1.0, 1.0, 2.0]
    """
    cells = functional.adaptive_avg_pool2d(maps.float().clamp_min(0), grid)
    high, low = cells.amax((2, 3), keepdim=True), cells.amin((2, 3), keepdim=True)
    constant = high - low <= _ROUNDING * high
    mean = cells.mean((2, 3), keepdim=True)
    return torch.where(constant, 1.0, cells / torch.where(constant, 1.0, mean))


def find_pooled_layer(module: nn.Module, size: int) -> PooledLayer | None:
    """The layer whose features a network pools before its head, by running it.

    It is the last one whose output is a grid (N, C, h, w) of more than one cell through which the whole signal goes.
    What the head reads must not depend on the order of its cells: so it is for global pooling, and neither for
    transformers, whose tokens have positions, nor for VGG.

    Args:
        module: (N, 3, size, size) to logits; left unchanged.
        size: side of the frame in pixels.

    Returns:
        None where the network has no such layer.
    """
    size = probe_size(size)
    with evaluating(module):
        for name in reversed(_grids(module, size)):
            if is_clean_cut(module, name, size):
                return _pooled(_without_zeros(module).double(), name, size)
    return None


def _without_zeros(module: nn.Module) -> nn.Module:
    """A copy with random values for tensors of zeros, with which some heads and residual branches start: these would
    ignore what they read.
    """
    twin, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return twin


def _grids(module: nn.Module, size: int) -> list[str]:
    """Names of the modules that return a grid, in the order in which they run; the outermost of equal tensors."""
    outputs: dict[int, tuple[str, Tensor]] = {}

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            # with the tensor, so that no later one has its id; containers return after what they contain
            outputs[id(output)] = name, output

    handles = [
        part.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, part in module.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            module(probe_frames(size, 1))
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, _ in outputs.values()]


def _pooled(module: nn.Module, name: str, size: int) -> PooledLayer | None:
    """The layer of that name, if the head pools its features."""
    features: list[Tensor] = []
    # what runs next may work in place
    plain, linear = _read(module, name, size, lambda output: features.append(output.clone()))
    rolled, _ = _read(module, name, size, lambda output: output.flatten(2).roll(1, 2).view_as(output))
    if not _close(rolled, plain):
        return None
    mean = features[0].mean((2, 3))
    grid = features[0].shape[2], features[0].shape[3]
    return PooledLayer(name, grid, mean.shape[1], linear if _close(plain, mean) else None)


def _read(module: nn.Module, name: str, size: int, change: object) -> tuple[Tensor, str | None]:
    """What the linear layer that makes the logits reads, and its name; the logits themselves without one."""
    seen: list[tuple[str, Tensor, Tensor]] = []
    handles = [
        part.register_forward_hook(lambda _module, inputs, output, name=name: seen.append((name, inputs[0], output)))
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad(), replaced_output(module.get_submodule(name), change):  # type: ignore[arg-type]
            logits = module(probe_frames(size, 2).double())
    finally:
        for handle in handles:
            handle.remove()
    if seen and torch.equal(seen[-1][2], logits):
        return seen[-1][1], seen[-1][0]
    return logits, None


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())
