"""Linear layers with constant weights: convolutions and matrix products, forward and backward with any weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.pull_back import Pull, Step, by_autograd

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
LAYERS = (*CONVOLUTIONS, aten.linear.default)
"""Operators of linear layers: input, weight and bias are their first arguments."""


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer: the operator, its weight and bias, and the shape of its input.

    Attributes:
        operator: reads (input, weight, bias, *rest).
        weight: as the layer has it.
        bias: as the layer has it, or None.
        rest: further arguments.
        shape: of the input.
    """

    operator: Callable[..., Any]
    weight: Tensor
    bias: Tensor | None
    rest: tuple[Any, ...]
    shape: torch.Size

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output for other inputs, weights and biases."""
        return self.operator(x, weight, bias, *self.rest)  # type: ignore[no-any-return]

    def output(self, step: Step) -> Tensor:
        """The layer's own output in a step, and in the same way that of the baseline."""
        source = step.sources[0]
        if step.baseline_values.get(source) is not None:
            step.baseline = self.forward(step.baseline_values[source], self.weight, self.bias)
        return self.forward(step.values[source], self.weight, self.bias)

    def backward(self, signal: Tensor, weight: Tensor) -> Tensor:
        """A signal at the output multiplied by the transposed layer with some weights, shaped as the input."""
        with torch.enable_grad():
            leaf = torch.zeros(self.shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
            value = self.forward(leaf, weight)
        return torch.autograd.grad(value, leaf, signal)[0]


class Convolution(LinearLayer):
    """A two-dimensional convolution with padding in pixels."""

    @classmethod
    def of(cls, step: Step) -> Convolution | None:
        """The convolution of a step; None if its weight is no constant or its padding is a word."""
        if step.node.target is not aten.conv2d.default:
            return None
        kernel = step.node.args[1]
        if not isinstance(kernel, fx.Node) or kernel.op != "get_attr":
            return None
        x, weight, bias, *rest = step.arguments(None, None, None, (1, 1), (0, 0), (1, 1), 1)
        return None if isinstance(rest[1], str) else cls(aten.conv2d.default, weight, bias, tuple(rest), x.shape)

    def backward(self, signal: Tensor, weight: Tensor) -> Tensor:
        """As of any linear layer, without the forward pass that autograd would need."""
        # only the input's shape matters to its own gradient
        like = torch.empty(self.shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
        stride, padding, dilation, groups = self.rest
        rest = (list(stride), list(padding), list(dilation), False, [0, 0], groups, [True, False, False])
        return aten.convolution_backward(signal, like, weight, None, *rest)[0]  # type: ignore[no-any-return]


class Product(LinearLayer):
    """A matrix product of each frame's features (N, C) with a constant, as in a dense layer.

    It is computed frame by frame, because the rounding of a product of matrices depends on a frame's row.
    """

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As of any linear layer."""
        # copies, as each then begins at an aligned address
        return torch.stack([torch.nn.functional.linear(row.clone(), weight, bias) for row in x])

    def backward(self, signal: Tensor, weight: Tensor) -> Tensor:
        """As of any linear layer."""
        return torch.stack([row.clone() @ weight for row in signal])


def linear_layer(step: Step) -> LinearLayer:
    """The linear layer of a step, whose operator is one of `LAYERS` and whose weight is a constant."""
    if convolution := Convolution.of(step):
        return convolution
    x, weight, bias, *rest = step.arguments(None, None, None)
    kind = Product if step.node.target is aten.linear.default and x.ndim == 2 else LinearLayer
    return kind(step.node.target, weight, bias, tuple(rest), x.shape)  # type: ignore[arg-type]


def gradient(step: Step) -> tuple[Any, Pull | None]:
    """The rule of the gradient: linear layers' own, which keeps no inputs, and else autograd's."""
    weight = step.node.args[1] if step.node.target in LAYERS else None
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return by_autograd(step)
    layer = linear_layer(step)
    return layer.output(step), lambda signal: (layer.backward(signal, layer.weight),)
