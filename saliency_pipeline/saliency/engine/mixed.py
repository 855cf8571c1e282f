"""Pixel gradients at half the cost: an fp32 forward pass whose backward pass runs in bf16.

A bf16 forward pass ruins pixel gradients, because rounding flips ReLU masks and pooling choices; rounding the
gradient alone does not, since the backward pass is linear in it. Autograd insists that a gradient has the dtype of
what it belongs to, so the trunk is differentiated here, node by node over its flat graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from saliency_pipeline.saliency.engine.split import call, constant

aten = torch.ops.aten
Pull = Callable[[Tensor], tuple[Tensor | None, ...]]
HALF = torch.bfloat16


class MixedTrunk(nn.Module):
    """A trunk (N, 3, S, S) -> activations whose gradient with respect to the frames is computed in bf16."""

    def __init__(self, trunk: fx.GraphModule) -> None:
        super().__init__()
        self.trunk = trunk
        for node in trunk.graph.nodes:
            if node.op == "get_attr" and any(
                user.target is aten.conv2d.default and user.args[1] is node for user in node.users
            ):
                self.register_buffer(f"half_{node.target}", constant(trunk, node).to(HALF))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S) float32 to activations float32, differentiable."""
        return cast(Tensor, _Differentiated.apply(frames, self))

    def half_weight(self, node: fx.Node) -> Tensor:
        """The bf16 copy of a convolution's weight."""
        return cast(Tensor, getattr(self, f"half_{node.target}"))


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
        record = _Record(mixed, frames)
        ctx.record = record
        # A tensor of its own: one that the record holds would keep the record, and so itself, alive.
        return record.result.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.record.pull_back(gradient), None


class _Record:
    """One forward pass through the graph: the result, and for each node on the way how to pull a gradient back."""

    def __init__(self, mixed: MixedTrunk, frames: Tensor) -> None:
        self.steps: list[tuple[fx.Node, tuple[fx.Node, ...], Pull]] = []
        values: dict[fx.Node, Any] = {}
        active: set[fx.Node] = set()
        last_use = {source: node for node in mixed.trunk.graph.nodes for source in node.all_input_nodes}
        for node in mixed.trunk.graph.nodes:
            if node.op == "placeholder":
                values[node] = frames
                active.add(node)
                self.start = node
            elif node.op == "get_attr":
                values[node] = constant(mixed.trunk, node)
            elif node.op == "output":
                self.end = node.args[0]
            else:
                sources = tuple(s for s in node.all_input_nodes if s in active)
                values[node], pull = _run(mixed, node, sources, values)
                if isinstance(values[node], _Several):
                    active.add(node)
                elif pull:
                    whole = values[sources[0]]
                    self.steps.append((node, tuple(whole.leaves) if isinstance(whole, _Several) else sources, pull))
                    active.add(node)
            for source in node.all_input_nodes:
                if last_use[source] is node and source is not self.start and node.op != "output":
                    del values[source]
        self.result: Tensor = values[self.end]

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the frames, float32, for `gradient` with respect to the result."""
        pending: dict[fx.Node, Tensor] = {self.end: gradient.to(HALF)}
        for node, sources, pull in reversed(self.steps):
            upstream = pending.pop(node, None)
            if upstream is None:
                continue
            for source, part in zip(sources, pull(upstream), strict=True):
                if part is not None:
                    pending[source] = pending[source] + part if source in pending else part
        return pending[self.start].float()


@dataclass(frozen=True)
class _Several:
    """The results of an operator that has several (a split), attached to the leaves they were computed from."""

    outputs: Sequence[Tensor]
    leaves: dict[fx.Node, Tensor]


def _run(
    mixed: MixedTrunk, node: fx.Node, sources: tuple[fx.Node, ...], values: Mapping[fx.Node, Any]
) -> tuple[Any, Pull | None]:
    """A node's value, and how to pull its gradient back to `sources` (None where it depends on no frame)."""
    rule = _RULES.get(node.target)
    if not sources:
        return call(node, values), None
    # A rule pulls a gradient back to everything that is no weight.
    if rule and not node.kwargs and {n for n in node.all_input_nodes if n.op != "get_attr"} == set(sources):
        with torch.no_grad():
            result = rule(mixed, node, *fx.node.map_arg(node.args, values.__getitem__))
        if result is not None:
            return result
    return _by_autograd(node, sources, values)


def _by_autograd(node: fx.Node, sources: tuple[fx.Node, ...], values: Mapping[fx.Node, Any]) -> tuple[Any, Pull | None]:
    """Any other operator: its own autograd formula, in fp32, between bf16 gradients."""
    whole = values[sources[0]]
    if isinstance(whole, _Several):
        value, leaves = whole.outputs[node.args[1]], whole.leaves  # type: ignore[index]
    else:
        leaves = {source: values[source].detach().requires_grad_() for source in sources}
        with torch.enable_grad():
            value = call(node, {**values, **leaves})
        if not isinstance(value, Tensor):
            return _Several(value, leaves), None
    if not value.requires_grad:
        return value, None

    def pull(gradient: Tensor) -> tuple[Tensor | None, ...]:
        # Kept, because every target pulls its own gradient back.
        parts = torch.autograd.grad(
            value, list(leaves.values()), gradient.to(value.dtype), retain_graph=True, allow_unused=True
        )
        return tuple(None if part is None else part.to(HALF) for part in parts)

    return value.detach(), pull


def _conv2d(
    mixed: MixedTrunk, node: fx.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1), groups: int = 1,
) -> tuple[Tensor, Pull] | None:  # fmt: skip
    kernel = node.args[1]
    if isinstance(padding, str) or not isinstance(kernel, fx.Node) or kernel.op != "get_attr":
        return None
    half, shape, device = mixed.half_weight(kernel), x.shape, x.device

    def pull(gradient: Tensor) -> tuple[Tensor]:
        # Only the input's shape matters to its own gradient.
        like = torch.empty(shape, dtype=HALF, device=device, memory_format=torch.channels_last)
        mask = [True, False, False]
        rest = (list(stride), list(padding), list(dilation), False, [0, 0], groups, mask)
        return (aten.convolution_backward(gradient, like, half, None, *rest)[0],)

    return aten.conv2d(x, weight, bias, stride, padding, dilation, groups), pull


def _relu(_mixed: MixedTrunk, node: fx.Node, x: Tensor) -> tuple[Tensor, Pull]:
    value = x.relu()
    # positive numbers stay positive in bf16, and two of a kind are compared four times as fast as through a bool mask
    half = value.to(HALF)
    return value, lambda gradient: (aten.threshold_backward(gradient, half, 0),)


def _hardtanh(
    _mixed: MixedTrunk, node: fx.Node, x: Tensor, low: float = -1.0, high: float = 1.0
) -> tuple[Tensor, Pull]:
    value = torch.nn.functional.hardtanh(x, low, high)
    if truncated(torch.tensor([low, high])).tolist() != [low, high]:
        return value, lambda gradient: (gradient * ((value > low) & (value < high)),)
    half = truncated(value)
    return value, lambda gradient: (aten.hardtanh_backward(gradient, half, low, high),)


def truncated(values: Tensor) -> Tensor:
    """Float32 numbers cut to bf16, so that none reaches a bound of bf16 that it was within, as rounding lets it.

    >>> near = torch.tensor([5.999, 6.0])
    >>> truncated(near).tolist(), near.bfloat16().tolist()
    ([5.96875, 6.0], [6.0, 6.0])
    """
    return (values.view(torch.int32) & -0x10000).view(torch.float32).to(HALF)


def _add(_mixed: MixedTrunk, node: fx.Node, x: Any, y: Any) -> tuple[Tensor, Pull] | None:
    terms = [n for n in node.all_input_nodes if n.op != "get_attr"]
    if len(terms) != 2 or not (isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape):
        return None
    return x + y, lambda gradient: (gradient, gradient)


_RULES: dict[Any, Callable[..., tuple[Tensor, Pull] | None]] = {
    aten.conv2d.default: _conv2d,
    aten.relu.default: _relu,
    aten.hardtanh.default: _hardtanh,
    aten.add.Tensor: _add,
}
