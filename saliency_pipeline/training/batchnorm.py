"""BatchNorm in training: a check for single values per channel, and layers synchronized over processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_pipeline.models.probe import evaluating


def single_valued(network: nn.Module, forward: Callable[[], object]) -> str:
    """Name of the first BatchNorm layer in training mode that sees one value per channel; empty where none does.

    One value has no variance, and BatchNorm would fail during training.

    Args:
        network: the network, left unchanged.
        forward: runs the network on the smallest batch of the training.
    """
    names: list[str] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            if inputs[0].numel() == inputs[0].shape[1]:
                names.append(name)

        return hook

    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, _BatchNorm) and m.training]
    hooks = [layer.register_forward_pre_hook(look(name)) for name, layer in layers]
    try:
        with evaluating(network), torch.no_grad():
            forward()
    finally:
        for handle in hooks:
            handle.remove()
    return names[0] if names else ""


def synchronize(network: nn.Module, device: torch.device) -> nn.Module:
    """Synchronize every BatchNorm of a network over the processes; names, tensors and hooks are kept.

    On a GPU with PyTorch's own layers; PyTorch has none for the CPU, where they are `SynchronizedBatchNorm`.
    """
    hooks = {name: module._forward_hooks for name, module in network.named_modules()}
    if device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    else:
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d | nn.BatchNorm1d):
                    setattr(parent, name, SynchronizedBatchNorm(child))
    for name, module in network.named_modules():
        # a layer that is replaced may be the one at which branches are fused
        module._forward_hooks = hooks.get(name, module._forward_hooks)
    return network


class SynchronizedBatchNorm(nn.Module):
    """BatchNorm (Ioffe & Szegedy 2015) with the moments of the batches of all processes.

    Args:
        norm: the layer to replace, whose parameters and running statistics are shared; may include an activation, as
            timm's layers do.
    """

    def __init__(self, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers(recurse=False):
            self.register_buffer(name, value)
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        self.training = norm.training

    def forward(self, values: Tensor) -> Tensor:
        """(N, C, ...) to the same shape and dtype."""
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if not self.training:
            normed = functional.batch_norm(values, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
            return self._activated(normed)
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1, *[1] * (values.ndim - 2)]
        wide = values.float()
        count = torch.full_like(mean[:1], values.numel() / values.shape[1])
        sums = torch.cat([wide.sum(axes), count])
        sums = _summed(sums)
        total = sums[-1]
        batch_mean = sums[:-1] / total
        centered = wide - batch_mean.view(shape)
        # around the common mean, in a second exchange: a difference of two large sums would lose digits
        batch_variance = _summed((centered * centered).sum(axes)) / total
        self._remember(batch_mean.detach(), batch_variance.detach() * total.detach() / (total.detach() - 1))
        scale = self.weight * torch.rsqrt(batch_variance + self.eps)
        return self._activated((centered * scale.view(shape) + self.bias.view(shape)).to(values.dtype))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        seen = self.get_buffer("num_batches_tracked")
        seen += 1
        weight = 1 / float(seen) if self.momentum is None else self.momentum
        self.get_buffer("running_mean").lerp_(mean, weight)
        self.get_buffer("running_var").lerp_(variance, weight)

    def _activated(self, values: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(values))
        return activated


class _Sum(torch.autograd.Function):
    """Sum over all processes. Every result depends on every input, so that gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total
