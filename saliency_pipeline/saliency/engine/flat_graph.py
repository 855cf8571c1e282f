"""Flat graphs, in which every call of every operator is a node of its own: read, cut, folded.

Constants are `get_attr` nodes that stand for buffers or parameters of the graph's module.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

aten = torch.ops.aten


def call(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The result of an operator of a flat graph for the values of the nodes it reads."""
    target: Any = node.target
    arguments: Any = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    return target(*arguments[0], **arguments[1])


def constant(module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor a `get_attr` node of the graph stands for."""
    return cast(Tensor, operator.attrgetter(str(node.target))(module))


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator of PyTorch by their names, with those that are not passed."""
    expected = node.target._schema.arguments  # type: ignore[union-attr]
    passed = {argument.name: value for argument, value in zip(expected, node.args, strict=False)}
    return {argument.name: argument.default_value for argument in expected} | passed | dict(node.kwargs)


def shapes_of(module: fx.GraphModule, batch: int, size: int) -> dict[fx.Node, tuple[int, ...]]:
    """Shape of every tensor of a flat graph that reads (batch, 3, size, size), without computing any.

    A stored graph does not have them. Empty where an operator insists on values.
    """
    values: dict[fx.Node, Any] = {}
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            for node in module.graph.nodes:
                if node.op == "placeholder":
                    values[node] = torch.empty(batch, 3, size, size, device=device_of(module))
                elif node.op == "get_attr":
                    values[node] = mode.from_tensor(constant(module, node).detach())
                elif node.op == "call_function":
                    values[node] = call(node, values)
    except Exception:  # operators raise what they want
        return {}
    return {node: tuple(value.shape) for node, value in values.items() if isinstance(value, Tensor)}


def device_of(module: fx.GraphModule) -> torch.device:
    """The device of a graph's constants; the CPU if there are none."""
    return next((tensor.device for tensor in (*module.buffers(), *module.parameters())), torch.device("cpu"))


def subgraph(module: fx.GraphModule, start: fx.Node, end: fx.Node | tuple[fx.Node, ...]) -> fx.GraphModule:
    """The part of the graph that computes `end` from `start`; it shares the weights."""
    needed: set[fx.Node] = set(end if isinstance(end, tuple) else (end,))
    for node in reversed(module.graph.nodes):
        if node in needed and node is not start:
            needed.update(node.all_input_nodes)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {start: graph.placeholder("x")}
    for node in module.graph.nodes:
        if node in needed and node is not start:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(fx.node.map_arg(end, copies.__getitem__))
    graph.lint()
    return fx.GraphModule(module, graph).eval()


def fold_constants(module: fx.GraphModule) -> None:
    """Compute what depends on no input (a ViT's resized positions, Swin's position bias) once, in place.

    Afterwards every constant of the graph is a buffer of the module itself; weights are shared, not copied.
    """
    graph = module.graph
    constants: dict[fx.Node, object] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            constants[node] = constant(module, node).detach()
        elif node.op == "call_function" and all(source in constants for source in node.all_input_nodes):
            constants[node] = call(node, constants)
    for node, value in constants.items():
        if isinstance(value, Tensor) and any(user not in constants for user in node.users):
            with graph.inserting_before(node):
                buffer = _buffer(module, f"constant_{node.name}", value)
            node.replace_all_uses_with(buffer, delete_user_cb=lambda user: user not in constants)
    graph.eliminate_dead_code()
    module.recompile()


def fold_batchnorm(module: fx.GraphModule) -> None:
    """Fold every BatchNorm of an exported graph into the convolution before it, in place.

    One that follows no convolution of its own (DenseNet) becomes an affine map of constants.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        source, *names = node.args[:5]
        weight, bias, mean, variance = (0.0 if n is None else constant(module, n).double() for n in names)
        scale = (variance + node.args[6]).rsqrt() * (1.0 if names[0] is None else weight)
        shift = bias - mean * scale
        with graph.inserting_before(node):
            if source.target is aten.conv2d.default and len(source.users) == 1:
                kernel = constant(module, source.args[1]).double()
                old = constant(module, source.args[2]).double() if len(source.args) > 2 and source.args[2] else 0.0
                arguments = list(source.args) + [None] * (3 - len(source.args))
                shape = (-1,) + (1,) * (kernel.ndim - 1)
                arguments[1] = _buffer(module, node.name + "_kernel", (kernel * scale.view(shape)).float())
                arguments[2] = _buffer(module, node.name + "_bias", (old * scale + shift).float())
                folded = graph.call_function(aten.conv2d.default, tuple(arguments), dict(source.kwargs))
            else:
                one = _buffer(module, node.name + "_scale", scale.float().view(-1, 1, 1))
                two = _buffer(module, node.name + "_shift", shift.float().view(-1, 1, 1))
                folded = graph.call_function(aten.addcmul.default, (two, source, one))
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(folded)
            graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def _buffer(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    module.register_buffer(name, value)
    return module.graph.get_attr(name)
