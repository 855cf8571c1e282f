"""An exported graph in functional form: no operator of it changes its input.

What `ExportedProgram.run_decompositions` does in general, and in three times the time of the export itself. Networks
in eval mode change nothing but activations and sums, and those hardly ever through a view: that is done here.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_NAMES = "relu hardtanh hardswish hardsigmoid silu gelu elu leaky_relu sigmoid tanh clamp add sub mul div"
_IN_PLACE = {getattr(aten, f"{name}_"): getattr(aten, name) for name in _NAMES.split()}
# These return their very input where they drop nothing.
_DROPOUTS = (
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)


def make_functional(graph: fx.Graph) -> bool:
    """Rewrite a graph of PyTorch's operators in place; False where that takes more than is known here.

    A graph for which it says so may be rewritten in part.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is not operator.getitem and not _rewritten(graph, node):
            return False
    return True


def _rewritten(graph: fx.Graph, node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    if target is aten.batch_norm.default:
        return _as_inference(graph, node)
    if target in _DROPOUTS:
        source, _, training = node.args
        if training:
            return False
        _replace(graph, node, source)
    elif target is aten.flatten.using_ints:
        node.target, node.args = aten.view.default, (node.args[0], list(node.meta["val"].shape))
    elif target._schema.is_mutable:
        return _out_of_place(node)
    return True


def _as_inference(graph: fx.Graph, node: fx.Node) -> bool:
    """BatchNorm by its running statistics, as the operator that returns (result, two empty tensors)."""
    source, weight, bias, mean, variance, training, momentum, eps, _ = node.args
    if training or mean is None or variance is None:
        return False
    with graph.inserting_before(node):
        arguments = (source, weight, bias, mean, variance, momentum, eps)
        whole = graph.call_function(aten._native_batch_norm_legit_no_training.default, arguments)
        result = graph.call_function(operator.getitem, (whole, 0))
    result.meta = dict(node.meta)
    _replace(graph, node, result)
    return True


def _out_of_place(node: fx.Node) -> bool:
    """The operator that returns what this one writes over its first argument, which nothing reads after it."""
    target: Any = node.target
    changed = node.args[0]
    packet = _IN_PLACE.get(target.overloadpacket)
    if packet is None or not isinstance(changed, fx.Node):
        return False
    root, nodes = _root(changed), list(node.graph.nodes)
    if root.op != "call_function":
        return False  # the network's input, or a weight
    place = nodes.index(node)
    before = set(nodes[:place])

    def later(user: fx.Node) -> bool:
        return user is not node and user not in before

    for other in nodes[:place]:
        if other is not changed and _root(other) is root and any(map(later, other.users)):
            return False  # read through a view
    node.target = getattr(packet, target._overloadname)
    changed.replace_all_uses_with(node, delete_user_cb=later)
    return True


def _root(node: fx.Node) -> fx.Node:
    """The node whose memory a node's result may share: itself, or what it is a view of."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        target: Any = node.target
        views = target is operator.getitem or any(returned.alias_info for returned in target._schema.returns)
        if not views:
            break
        node = node.args[0]
    return node


def _replace(graph: fx.Graph, node: fx.Node, by: Any) -> None:
    node.replace_all_uses_with(by)
    graph.erase_node(node)
