"""Convolutions that add a residual and apply an activation function in the same kernel, for backward passes on the CPU.

Autograd computes each of the three by itself, and each reads and writes activations that no cache holds. Only weights
and biases that are constants of the graph are fused, as none of them gets a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.flat_graph import arguments_of, shapes_of

aten = torch.ops.aten

Activation = tuple[str | None, tuple[float, ...]]
"""Name of a function of oneDNN, and its parameters. What those here return determines their gradients."""

_NONE: Activation = (None, ())

# oneDNN's sums have no other
_BEHIND_SUMS = (_NONE, ("relu", ()))

# Bytes to whose multiples PyTorch aligns tensors on the CPU
_ALIGNED = 64


def fuse_convolutions(module: fx.GraphModule, batch: int, size: int) -> None:
    """Fuse the convolutions of a flat graph with what follows them, in place.

    Args:
        module: float32 on the CPU, reads frames (batch, 3, size, size).
        batch: see there.
        size: see there.
    """
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    graph, shapes = module.graph, shapes_of(module, batch, size)
    # the last first, as the later one of two convolutions adds the other's result
    for node in reversed(list(graph.nodes)):
        activation = _activation(node)
        end = node if activation == _NONE else node.args[0]
        if not node.users or not isinstance(end, fx.Node) or (end is not node and len(end.users) > 1):
            continue
        convolution, residual = _parts(end, shapes)
        if convolution is None or (residual is not None and activation not in _BEHIND_SUMS):
            continue
        own = arguments_of(convolution)
        how: dict[str, Any] = {name: _pair(own[name]) for name in ("stride", "padding", "dilation")}
        how |= {"groups": own["groups"], "activation": activation}
        with graph.inserting_before(node):
            inputs = (own["input"], own["weight"], own["bias"], residual)
            node.replace_all_uses_with(graph.call_function(fused_convolution, inputs, how))
        for done in dict.fromkeys((node, end, convolution)):
            if not done.users:
                graph.erase_node(done)
    graph.lint()
    module.recompile()


def _activation(node: fx.Node) -> Activation:
    if node.target is aten.relu.default:
        return "relu", ()
    if node.target is aten.relu6.default:
        return "hardtanh", (0.0, 6.0)
    if node.target is aten.hardtanh.default:
        own = arguments_of(node)
        return "hardtanh", (float(own["min_val"]), float(own["max_val"]))
    return _NONE


def _parts(end: fx.Node, shapes: Mapping[fx.Node, tuple[int, ...]]) -> tuple[fx.Node | None, fx.Node | None]:
    """The convolution that a node is, or is the sum of with a residual of the same shape, and the residual."""
    if _is_constant_convolution(end):
        return end, None
    if end.target is aten.add.Tensor and not end.kwargs and all(term in shapes for term in end.args):
        one, two = cast(tuple[fx.Node, fx.Node], end.args)
        for convolution, residual in ((two, one), (one, two)):
            if _is_constant_convolution(convolution) and convolution.users == {end: None}:
                return (convolution, residual) if shapes[one] == shapes[two] and one is not two else (None, None)
    return None, None


def _is_constant_convolution(node: fx.Node) -> bool:
    return node.target is aten.conv2d.default and all(source.op == "get_attr" for source in node.all_input_nodes[1:])


def _pair(value: Any) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values if len(values) == 2 else values * 2


def fused_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, **how: Any) -> Tensor:
    """activation(convolution(x) + residual), differentiable: the operator of a fused graph, (N, C, h, w).

    Args:
        x: (N, B, ., .).
        weight: (C, B / groups, ., .).
        bias: (C,).
        residual: (N, C, h, w), if there is one.
        how: `stride`, `padding`, `dilation`, `groups` and `activation`.
    """
    return cast(Tensor, _Convolution.apply(x, weight, bias, residual, how))


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, how: Mapping[str, Any]
) -> Tensor:
    """The output of `fused_convolution`, without a gradient."""
    window = (how["padding"], how["stride"], how["dilation"], how["groups"])
    name, parameters = how["activation"]
    if residual is None:
        plain = torch.ops.mkldnn._convolution_pointwise
        return cast(Tensor, plain(x, weight, bias, *window, name or "none", parameters, ""))
    summed = torch.ops.mkldnn._convolution_pointwise.binary
    return cast(Tensor, summed(x, residual, weight, bias, *window, "add", 1.0, name, parameters, ""))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, how: dict[str, Any]
    ) -> Tensor:
        output = convolved(x, weight, bias, residual, how)
        # what returns the sum itself needs no more of it
        ctx.save_for_backward(x, weight, output if how["activation"] != _NONE else None)
        ctx.how, ctx.summed = how, residual is not None
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, output = ctx.saved_tensors
        name, parameters = ctx.how["activation"]
        if name == "relu":
            gradient = aten.threshold_backward(gradient, output, 0)
        elif name == "hardtanh":
            gradient = aten.hardtanh_backward(gradient, output, *parameters)
        pulled = _pulled(gradient, x, weight, ctx.how) if ctx.needs_input_grad[0] else None
        return pulled, None, None, gradient if ctx.summed else None, None


def _pulled(gradient: Tensor, x: Tensor, weight: Tensor, how: dict[str, Any]) -> Tensor:
    """The gradient of a convolution's input."""
    if weight.shape[2:] == (1, 1) and how["padding"] == [0, 0] and how["groups"] == 1:
        # a matrix product, for which PyTorch takes a slow kernel or lays the weights out for each batch
        product = _frame_products(gradient.permute(0, 2, 3, 1).contiguous(), weight.flatten(1))
        if how["stride"] == [1, 1]:
            return product.permute(0, 3, 1, 2)
        pulled = torch.zeros_like(x, memory_format=torch.channels_last)
        rows, columns = how["stride"]
        pulled[:, :, ::rows, ::columns] = product.permute(0, 3, 1, 2)
        return pulled
    window = (how["stride"], how["padding"], how["dilation"], False, [0, 0], how["groups"])
    return cast(Tensor, aten.convolution_backward(gradient, x, weight, None, *window, [True, False, False])[0])


def _frame_products(signal: Tensor, matrix: Tensor) -> Tensor:
    """Products of frames (N, H, W, C) with a matrix, rounded alike at every place in the batch.

    One product of all rows rounds them by their place, and any product may by the address where its frame begins.
    """
    count, height, width, _ = signal.shape
    sizes = [height * width * channels * signal.element_size() for channels in matrix.shape]
    if all(size % _ALIGNED == 0 for size in sizes):
        return torch.bmm(signal.flatten(1, 2), matrix.expand(count, -1, -1)).view(count, height, width, -1)
    return torch.stack([frame.clone() @ matrix for frame in signal])
