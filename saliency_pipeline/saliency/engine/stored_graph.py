"""Serialization of flat graphs: nodes as JSON, constants as tensors, in one safetensors file.

Deserialization executes nothing from the bytes. A node may only call an operator of PyTorch that reads tensors and
returns new ones; every name that becomes part of the generated code is checked.
"""

from __future__ import annotations

import json
import keyword
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.flat_graph import constant

_METADATA = "graph"
# types without a JSON equivalent whose values are attributes of torch
_TORCH_VALUES: dict[str, type] = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
_CONSTANT_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


def to_bytes(graph: fx.GraphModule | None, description: Mapping[str, Any]) -> bytes:
    """Serialize a flat graph with one input, or None, and a JSON-serializable description of it.

    Raises:
        TypeError: the graph has a node or an argument that is not supported.
    """
    constants: dict[str, Tensor] = {}
    nodes = []
    for node in graph.graph.nodes if graph else ():
        if graph and node.op == "get_attr":
            constants[str(node.target)] = constant(graph, node).detach()
        nodes.append([node.op, node.name, _target_name(node), _to_json(node.args), _to_json(dict(node.kwargs))])
    strides = {name: value.stride() for name, value in constants.items() if _has_own_strides(value)}
    text = json.dumps({**description, "nodes": nodes, "strides": strides})
    return bytes(save({name: _owning(value) for name, value in constants.items()}, {_METADATA: text}))


def from_bytes(data: bytes) -> tuple[fx.GraphModule | None, dict[str, Any]]:
    """Deserialize the graph, its constants with their original strides, and the description.

    Raises:
        ValueError: the bytes are not a serialized graph, or one with a node that is not allowed. Other exceptions
            are possible for bytes that `to_bytes` did not write.
    """
    header = int.from_bytes(data[:8], "little")
    description = json.loads(json.loads(data[8 : 8 + header])["__metadata__"][_METADATA])
    nodes, strides = description.pop("nodes"), description.pop("strides")
    if not nodes:
        return None, description
    constants = {name: _with_strides(value, strides.get(name)) for name, value in load(data).items()}
    graph = fx.Graph()
    values: dict[str, fx.Node] = {}
    for op, name, target, arguments, options in nodes:
        args, kwargs = _from_json(arguments, values), _from_json(options, values)
        if op == "placeholder" and target.isidentifier() and not keyword.iskeyword(target):
            values[name] = graph.placeholder(target)
        elif op == "get_attr" and target in constants and _CONSTANT_NAME.fullmatch(target):
            values[name] = graph.get_attr(target)
        elif op == "call_function":
            values[name] = graph.create_node(op, _operator(target, args, kwargs), args, kwargs, name)
        elif op == "output":
            graph.output(args[0])
        else:
            raise ValueError(f"{op} {target}: not allowed in a flat graph")
    graph.lint()
    return fx.GraphModule(constants, graph).eval(), description


def _has_own_strides(value: Tensor) -> bool:
    """Return whether a tensor is laid out unlike a new one; expanded tensors (stride 0) are stored as new ones."""
    return value.stride() != value.new_empty(value.shape).stride() and 0 not in value.stride()


def _owning(value: Tensor) -> Tensor:
    """A contiguous tensor that shares its memory with no other."""
    value = value.contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _with_strides(value: Tensor, strides: list[int] | None) -> Tensor:
    """A copy of a tensor in memory that PyTorch aligned: BLAS may round differently in memory that is not."""
    if strides is None:
        return value.clone()
    return torch.empty_strided(value.shape, strides, dtype=value.dtype).copy_(value)


def _target_name(node: fx.Node) -> str:
    if node.op in ("placeholder", "get_attr", "output"):
        return str(node.target)
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        return str(node.target)
    raise TypeError(f"{node.op} {node.target}: not an operator of PyTorch")


def _operator(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """The operator with this name, if it only computes new values from the graph's values."""
    if name == "getitem":
        if kwargs:
            raise ValueError("getitem: has no named arguments")
        return operator.getitem
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
    if namespace != "aten" or not isinstance(function, torch._ops.OpOverload):
        raise ValueError(f"{name}: not an operator of PyTorch")
    schema = function._schema
    inputs: list[fx.Node] = []
    fx.node.map_arg((args, dict(kwargs)), inputs.append)
    if schema.is_mutable or not schema.returns or not inputs:
        raise ValueError(f"{name}: does not only compute a new value")
    if unknown := set(kwargs) - {argument.name for argument in schema.arguments}:
        raise ValueError(f"{name}: has no argument {unknown.pop()!r}")
    return function


def _to_json(value: Any) -> Any:
    """A node's argument as JSON; a type without a JSON equivalent becomes an object with one key."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": {name: _to_json(item) for name, item in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, type_ in _TORCH_VALUES.items():
        if isinstance(value, type_):
            return {kind: str(value).removeprefix("torch.")}
    raise TypeError(f"{value!r}: not supported as an argument")


def _from_json(value: Any, values: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return values[content]
    if kind == "tuple":
        return tuple(_from_json(item, values) for item in content)
    if kind == "dict":
        return {name: _from_json(item, values) for name, item in content.items()}
    if kind == "device":
        return torch.device(content)
    result = getattr(torch, content)
    if not isinstance(result, _TORCH_VALUES[kind]):
        raise ValueError(f"{content}: not a {kind}")
    return result
