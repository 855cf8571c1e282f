"""Pixel gradients at half the cost: an fp32 forward pass whose backward pass runs in bf16.

A bf16 forward pass ruins pixel gradients, because rounding flips ReLU masks and pooling choices; rounding the
gradient alone does not, since the backward pass is linear in it. Autograd insists that a gradient has the dtype of
what it belongs to, so the trunk is differentiated by `pull_back`, node by node over its flat graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from saliency_pipeline.saliency.engine.flat_graph import constant
from saliency_pipeline.saliency.engine.fused import convolved, fused_convolution
from saliency_pipeline.saliency.engine.pull_back import Pull, Record, Rule, Step, by_autograd
from saliency_pipeline.saliency.engine.rules.linear import Convolution

aten = torch.ops.aten
HALF = torch.bfloat16

_CONVOLUTIONS = (aten.conv2d.default, fused_convolution)

Through = Callable[[Tensor], Tensor]
"""From the gradient behind an activation function to that before it."""


class MixedTrunk(nn.Module):
    """A trunk (N, 3, S, S) -> activations whose gradient with respect to the frames is computed in bf16."""

    def __init__(self, trunk: fx.GraphModule) -> None:
        super().__init__()
        self.trunk = trunk
        for node in trunk.graph.nodes:
            if node.op == "get_attr" and any(
                user.target in _CONVOLUTIONS and user.args[1] is node for user in node.users
            ):
                self.register_buffer(f"half_{node.target}", constant(trunk, node).to(HALF))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S) float32 to activations float32, differentiable."""
        return cast(Tensor, _Differentiated.apply(frames, self))

    def half_weight(self, node: fx.Node) -> Tensor:
        """The bf16 copy of a convolution's weight."""
        return cast(Tensor, getattr(self, f"half_{node.target}"))

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule:
        """The rule of a node: autograd's own formula in fp32, between bf16 gradients, unless it has one in bf16."""
        if node.target is fused_convolution:
            return self._fused
        # a rule pulls a gradient back to everything that is no weight
        if not node.kwargs and {n for n in node.all_input_nodes if n.op != "get_attr"} == set(sources):
            if node.target is aten.conv2d.default:
                return self._conv2d
            return _RULES.get(node.target, _in_fp32)
        return _in_fp32

    def _conv2d(self, step: Step) -> tuple[Any, Pull | None]:
        convolution, kernel = Convolution.of(step), step.node.args[1]
        if convolution is None or not isinstance(kernel, fx.Node):
            return _in_fp32(step)
        half = self.half_weight(kernel)
        return step.output(), lambda gradient: (convolution.backward(gradient, half),)

    def _fused(self, step: Step) -> tuple[Tensor, Pull]:
        (source, kernel, _, residual), sources = step.node.args, step.sources
        x, weight, bias, other = step.arguments()
        how: dict[str, Any] = dict(step.node.kwargs)
        value = convolved(x, weight, bias, other, how)
        rest = tuple(how[name] for name in ("stride", "padding", "dilation", "groups"))
        convolution = Convolution(aten.conv2d.default, weight, bias, rest, x.shape)
        half = self.half_weight(cast(fx.Node, kernel))
        name, bounds = how["activation"]
        through = _THROUGH[name](value, *bounds)

        def pull(gradient: Tensor) -> tuple[Tensor | None, ...]:
            gradient = through(gradient)
            signals: dict[Any, Tensor] = {residual: gradient}
            if source in sources:
                signal = convolution.backward(gradient, half)
                signals[source] = signal + gradient if source is residual else signal
            return tuple(signals[node] for node in sources)

        return value, pull


class MixedNetwork(nn.Module):
    """`whole` of a split network with the trunk's backward pass in bf16 and the head's in fp32."""

    def __init__(self, trunk: fx.GraphModule, head: nn.Module) -> None:
        super().__init__()
        self.trunk = MixedTrunk(trunk)
        self.head = head

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Normalized frames (N, 3, S, S) to (each explained layer's output, logits (N, classes))."""
        output = self.trunk(frames)
        return output, *self.head(output)


class _Differentiated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, mixed: MixedTrunk) -> Tensor:
        record = Record(mixed.trunk, frames, mixed.rule)
        ctx.record = record
        # A tensor of its own: one that the record holds would keep the record, and so itself, alive.
        return record.results[0].detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.record.pull_back(gradient.to(HALF)).float(), None


def _in_fp32(step: Step) -> tuple[Any, Pull | None]:
    return by_autograd(step, HALF)


def _through_relu(value: Tensor) -> Through:
    # positive numbers stay positive in bf16, and two of a kind are compared four times as fast as through a bool mask
    half = value.to(HALF)
    return lambda gradient: aten.threshold_backward(gradient, half, 0)


def _through_hardtanh(value: Tensor, low: float, high: float) -> Through:
    if truncated(torch.tensor([low, high])).tolist() != [low, high]:
        return lambda gradient: gradient * ((value > low) & (value < high))
    half = truncated(value)
    return lambda gradient: aten.hardtanh_backward(gradient, half, low, high)


def truncated(values: Tensor) -> Tensor:
    """Float32 numbers cut to bf16, so that none reaches a bound of bf16 that it was within, as rounding lets it.

    >>> near = torch.tensor([5.999, 6.0])
    >>> truncated(near).tolist(), near.bfloat16().tolist()
    ([5.96875, 6.0], [6.0, 6.0])
    """
    channels_last = values.stride(-1) != 1
    rows = values.movedim(1, -1).contiguous() if channels_last else values
    # the second half of each number in memory: one copy, as fast as rounding
    half = rows.view(torch.bfloat16)[..., 1::2].contiguous().to(HALF)
    return half.movedim(-1, 1) if channels_last else half


def _relu(step: Step) -> tuple[Tensor, Pull]:
    value = step.output()
    through = _through_relu(value)
    return value, lambda gradient: (through(gradient),)


def _hardtanh(step: Step) -> tuple[Tensor, Pull]:
    value = step.output()
    through = _through_hardtanh(value, *step.arguments(None, -1.0, 1.0)[1:])
    return value, lambda gradient: (through(gradient),)


def _add(step: Step) -> tuple[Any, Pull | None]:
    x, y = step.arguments()
    terms = [n for n in step.node.all_input_nodes if n.op != "get_attr"]
    if len(terms) != 2 or not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape):
        return _in_fp32(step)
    return step.output(), lambda gradient: (gradient, gradient)


# by the names that fused convolutions have for them
_THROUGH: dict[str | None, Callable[..., Through]] = {
    None: lambda _: lambda gradient: gradient,
    "relu": _through_relu,
    "hardtanh": _through_hardtanh,
}

_RULES: dict[Any, Rule] = {aten.relu.default: _relu, aten.hardtanh.default: _hardtanh, aten.add.Tensor: _add}
