"""Families of operators, by what they do to the signals that depend on the frames."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from saliency_pipeline.saliency.engine.rules.linear import LAYERS

aten = torch.ops.aten


def _overloads(names: str) -> frozenset[Any]:
    """Operators of PyTorch by name, all overloads, those that this version has."""
    packets = [getattr(aten, name) for name in names.split() if hasattr(aten, name)]
    return frozenset(getattr(packet, overload) for packet in packets for overload in packet.overloads())


VIEWS = _overloads(
    "reshape view flatten unflatten permute transpose t squeeze unsqueeze slice select narrow split split_with_sizes "
    "chunk unbind cat stack concat pad constant_pad_nd expand expand_as repeat contiguous clone alias roll flip "
    "pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest2d dropout detach"
) | {operator.getitem}
"""Each number of the result is a number of one of the inputs, or a constant."""

AVERAGES = _overloads("mean sum avg_pool2d adaptive_avg_pool2d upsample_bilinear2d upsample_bicubic2d")
"""Linear in the only input."""

TERMS = _overloads("add sub rsub neg")
"""Linear in each of the inputs, and in all together."""

QUOTIENTS = _overloads("div")
FACTORS = _overloads("mul addcmul") | QUOTIENTS
"""Linear in an input if the others are constants; of a quotient, in the dividend."""

RELUS = frozenset({aten.relu.default, aten.hardtanh.default, aten.relu6.default, *_overloads("clamp clamp_min")})
"""The identity between two bounds, constant beyond; see `is_relu`."""

SMOOTH = _overloads("silu gelu sigmoid tanh elu celu mish softplus")
"""Functions of one number with a derivative that is continuous."""

KINKED = _overloads("leaky_relu selu hardswish hardsigmoid")
"""Functions of one number with a derivative that jumps."""

GATES = _overloads("sigmoid hardsigmoid softmax")
"""Functions with values in [0, 1], by which signals are multiplied."""

MAXIMA = frozenset({aten.max_pool2d.default})
"""Maxima over windows."""


def is_linear(node: fx.Node, sources: tuple[fx.Node, ...]) -> bool:
    """Return whether a node that reads `sources`, which depend on the frames, is linear in all of them together."""
    if node.target in VIEWS or node.target in AVERAGES or node.target in TERMS:
        return True
    if len(sources) != 1 or sum(argument is sources[0] for argument in node.args) != 1:
        return False
    if node.target in LAYERS or node.target in QUOTIENTS:
        return node.args[0] is sources[0]
    return node.target in FACTORS


def is_product(node: fx.Node, sources: tuple[fx.Node, ...]) -> bool:
    """Return whether a node multiplies two different signals that both depend on the frames."""
    return node.target is aten.mul.Tensor and len(sources) == 2


def bounds(node: fx.Node) -> tuple[float, float]:
    """Lower and upper bound of one of `RELUS`, infinite where it has none."""
    if node.target is aten.relu.default:
        return 0.0, float("inf")
    if node.target is aten.relu6.default:
        return 0.0, 6.0
    names, defaults = ("min", "max"), (None, None)
    if node.target is aten.hardtanh.default:
        names, defaults = ("min_val", "max_val"), (-1.0, 1.0)  # type: ignore[assignment]
    places = zip(names, (*node.args[1:], *defaults[len(node.args) - 1 :]), strict=False)
    low, high = (*(node.kwargs.get(name, value) for name, value in places), None)[:2]
    return -float("inf") if low is None else low, float("inf") if high is None else high  # type: ignore[return-value]


def is_relu(node: fx.Node) -> bool:
    """Return whether a node is ReLU, or ReLU with an upper bound such as ReLU6.

    Bounds that are tensors are none that is known before the network runs.
    """
    if node.target not in RELUS:
        return False
    low, high = bounds(node)
    return low == 0 and not isinstance(high, fx.Node)


def is_clipping(node: fx.Node, sources: tuple[fx.Node, ...]) -> bool:
    """Return whether a node is the identity between two numbers and constant beyond, as ReLU and hard tanh are."""
    return node.target in RELUS and len(sources) == 1 and not any(isinstance(b, fx.Node) for b in bounds(node))
