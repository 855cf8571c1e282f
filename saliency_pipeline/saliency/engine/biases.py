"""Biases of a flat graph, and the outputs that they are added to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.flat_graph import call, constant

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
# operators that add a bias, and the position of the bias among their arguments
_PLACES = {aten.conv2d.default: 2, aten.conv2d.padding: 2, aten.linear.default: 2, aten.addcmul.default: 0}


def biases_of(graph: fx.GraphModule, frames: Tensor) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]:
    """Run a flat graph; its results, and every bias with the output that it is part of.

    A bias is shaped as it is broadcast: (C, 1, 1) to outputs (N, C, h, w), (C,) to those of a linear layer.

    BatchNorm is folded: its shift is the bias of the convolution before it, or of an affine map of its own. Other
    constants that are added (positions of a transformer, biases of layer norms) are not included.
    """
    values: dict[fx.Node, Any] = {}
    outputs: list[tuple[Tensor, Tensor]] = []
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = frames
        elif node.op == "get_attr":
            values[node] = constant(graph, node)
        elif node.op == "output":
            return tuple(values[source] for source in node.args[0]), outputs
        else:
            values[node] = call(node, values)
            place = _PLACES.get(node.target)
            bias = node.args[place] if place is not None and place < len(node.args) else None
            # a network may add what it computed itself, which is no bias
            if isinstance(bias, fx.Node) and bias.op == "get_attr":
                constant_bias = values[bias]
                broadcast = constant_bias[:, None, None] if node.target in _CONVOLUTIONS else constant_bias
                outputs.append((broadcast, values[node]))
    raise ValueError("the graph has no output")
