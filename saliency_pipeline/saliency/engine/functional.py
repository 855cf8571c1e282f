"""Replacement of in-place operators of an exported graph by their functional variants.

`ExportedProgram.run_decompositions` does this for every graph, but takes longer than the export itself. Networks in
eval mode modify only activations and sums, and hardly ever a tensor that shares memory with another one that is still
read. These cases are handled here, all others are refused.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_IN_PLACE_NAMES = "relu hardtanh hardswish hardsigmoid silu gelu elu leaky_relu sigmoid tanh clamp add sub mul div"
_IN_PLACE = {getattr(aten, f"{name}_"): getattr(aten, name) for name in _IN_PLACE_NAMES.split()}
# Operators that return their input in eval mode.
_DROPOUTS = (
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)
# Operators whose result never shares memory with an input. PyTorch's schemas do not say so of all that may share it.
_NEW_MEMORY = {
    *_IN_PLACE.values(),
    *(aten.conv1d, aten.conv2d, aten.conv3d, aten.linear, aten.matmul, aten.bmm, aten.mm, aten.addmm, aten.cat),
    *(aten._native_batch_norm_legit_no_training, aten.layer_norm, aten.group_norm, aten.softmax, aten.pow, aten.exp),
    *(aten.max_pool2d, aten.avg_pool2d, aten.mean, aten.sum, aten.scaled_dot_product_attention, aten.clone),
}


class UnsupportedGraphError(Exception):
    """A graph that `make_functional` cannot rewrite."""


def make_functional(graph: fx.Graph) -> None:
    """Replace the in-place operators of an exported graph, in place.

    Raises:
        UnsupportedGraphError: the graph needs more than is implemented here; it may have been rewritten in part.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is not operator.getitem:
            _replace(graph, node)


def _replace(graph: fx.Graph, node: fx.Node) -> None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        raise UnsupportedGraphError(f"{target}: not an operator of PyTorch")
    if target is aten.batch_norm.default:
        _replace_batchnorm(graph, node)
    elif target in _DROPOUTS:
        source, _, training = node.args
        if training:
            raise UnsupportedGraphError(f"{node.name}: dropout in training mode")
        node.replace_all_uses_with(source)  # type: ignore[arg-type]
        graph.erase_node(node)
    elif target is aten.flatten.using_ints:
        node.target, node.args = aten.view.default, (node.args[0], list(node.meta["val"].shape))
    elif target._schema.is_mutable:
        _replace_in_place(node)


def _replace_batchnorm(graph: fx.Graph, node: fx.Node) -> None:
    """BatchNorm with running statistics, as the operator that returns (result, two empty tensors)."""
    source, weight, bias, mean, variance, training, momentum, eps, _ = node.args
    if training or mean is None or variance is None:
        raise UnsupportedGraphError(f"{node.name}: BatchNorm with the statistics of the batch")
    with graph.inserting_before(node):
        arguments = (source, weight, bias, mean, variance, momentum, eps)
        results = graph.call_function(aten._native_batch_norm_legit_no_training.default, arguments)
        normalized = graph.call_function(operator.getitem, (results, 0))
    normalized.meta = dict(node.meta)
    node.replace_all_uses_with(normalized)
    graph.erase_node(node)


def _replace_in_place(node: fx.Node) -> None:
    """Use the functional variant, and its result wherever the modified tensor is read afterwards."""
    target: Any = node.target
    packet, modified = _IN_PLACE.get(target.overloadpacket), node.args[0]
    if packet is None or not isinstance(modified, fx.Node):
        raise UnsupportedGraphError(f"{node.name}: no functional variant")
    if any(other.meta["val"].dtype != node.meta["val"].dtype for other in node.all_input_nodes):
        raise UnsupportedGraphError(f"{node.name}: mixed types")
    owners, before = _memory_owners(modified), []
    if any(owner.op != "call_function" for owner in owners):
        raise UnsupportedGraphError(f"{node.name}: modifies an input or a weight")
    for other in node.graph.nodes:
        if other is node:
            break
        before.append(other)
    earlier = {*before, node}
    for other in before:
        if other is not modified and owners & _memory_owners(other) and not earlier.issuperset(other.users):
            raise UnsupportedGraphError(f"{node.name}: modifies memory that {other.name} shares")
    node.target = getattr(packet, target._overloadname)
    modified.replace_all_uses_with(node, delete_user_cb=lambda user: user not in earlier)


def _memory_owners(node: fx.Node) -> set[fx.Node]:
    """The nodes whose memory a node's result may share: itself, if its operator allocates a new tensor."""
    target: Any = node.target
    if node.op != "call_function" or getattr(target, "overloadpacket", None) in _NEW_MEMORY:
        return {node}
    return set().union(*(_memory_owners(source) for source in node.all_input_nodes)) or {node}
