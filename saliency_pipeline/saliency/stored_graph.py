"""A flat graph as bytes and back: its nodes as JSON, its constants as tensors, in one safetensors file.

Reading runs nothing that the bytes hold: a node may call PyTorch's own operators, by name, and nothing else.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, fx

from saliency_pipeline.saliency.split import constant

_METADATA = "graph"
# values that JSON has no word for, by the type of the object that stands for them
_NAMED: dict[str, type] = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
# nodes whose target is a name and no operator
_NAMING = ("placeholder", "get_attr", "output")
_CONSTANT = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


def to_bytes(graph: fx.GraphModule | None, about: Mapping[str, Any]) -> bytes:
    """A graph, or none, and what is to be known of it.

    Raises:
        TypeError: it calls or is given something that cannot be named.
    """
    constants: dict[str, Tensor] = {}
    nodes = []
    for node in graph.graph.nodes if graph else ():
        if graph and node.op == "get_attr":
            constants[str(node.target)] = constant(graph, node).detach()
        nodes.append([node.op, node.name, _target_name(node), _packed(node.args), _packed(dict(node.kwargs))])
    strides = {name: value.stride() for name, value in constants.items() if _is_laid_out_otherwise(value)}
    text = json.dumps({**about, "nodes": nodes, "strides": strides})
    return bytes(save({name: value.contiguous().clone() for name, value in constants.items()}, {_METADATA: text}))


def from_bytes(data: bytes) -> tuple[fx.GraphModule | None, dict[str, Any]]:
    """What `to_bytes` was given, the constants laid out in memory as they were.

    Raises:
        Exception: of one kind or another where the bytes are not of its making.
    """
    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_METADATA])
    nodes, strides = about.pop("nodes"), about.pop("strides")
    if not nodes:
        return None, about
    constants = {name: _laid_out(value, strides.get(name)) for name, value in load(data).items()}
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for op, name, target, arguments, options in nodes:
        if op not in (*_NAMING, "call_function"):
            raise ValueError(f"{op}: not in a flat graph")
        if op == "get_attr" and not (target in constants and _CONSTANT.fullmatch(target)):
            raise ValueError(f"{target}: no constant of this graph")
        called = target if op in _NAMING else _operator(target)
        made[name] = graph.create_node(op, called, _unpacked(arguments, made), _unpacked(options, made), name)
    graph.lint()
    return fx.GraphModule(constants, graph).eval(), about


def _is_laid_out_otherwise(value: Tensor) -> bool:
    """Whether a tensor's memory is in another order than a new one's; one that repeats memory (0) becomes a new one."""
    return value.stride() != value.new_empty(value.shape).stride() and 0 not in value.stride()


def _laid_out(value: Tensor, strides: list[int] | None) -> Tensor:
    return value if strides is None else torch.empty_strided(value.shape, strides, dtype=value.dtype).copy_(value)


def _target_name(node: fx.Node) -> str:
    if node.op in _NAMING:
        return str(node.target)
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        return str(node.target)
    raise TypeError(f"{node.target}: not one of PyTorch's own operators")


def _operator(name: str) -> Callable[..., Any]:
    if name == "getitem":
        return operator.getitem
    namespace, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet), overload)
    if namespace != "aten" or not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"{name}: not one of PyTorch's own operators")
    return found


def _packed(value: Any) -> Any:
    """An argument as JSON: what JSON has no word for becomes an object of one name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list):
        return [_packed(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_packed(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": {name: _packed(part) for name, part in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, of in _NAMED.items():
        if isinstance(value, of):
            return {kind: str(value).removeprefix("torch.")}
    raise TypeError(f"{value!r}: cannot be named")


def _unpacked(value: Any, made: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, made) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "node":
        return made[held]
    if kind == "tuple":
        return tuple(_unpacked(part, made) for part in held)
    if kind == "dict":
        return {name: _unpacked(part, made) for name, part in held.items()}
    if kind == "device":
        return torch.device(held)
    found = getattr(torch, held)
    if not isinstance(found, _NAMED[kind]):
        raise ValueError(f"{held}: no {kind}")
    return found
