"""Serialized graphs: bit-identical after loading, with only operators of PyTorch."""

import json
import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import fx

from saliency_pipeline.saliency.engine.flat_graph import constant
from saliency_pipeline.saliency.engine.stored_graph import from_bytes, to_bytes
from tests import rare
from tests.saliency.networks import BATCH, library_source, library_split, noise, normalized

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
SIZES = {VIT: 224, SWIN: 224}


@pytest.mark.parametrize("name", ["test_resnet", *rare("densenet121", "convnext_atto", VIT, SWIN)])
def test_what_is_read_is_what_was_written(name: str) -> None:
    size = SIZES.get(name, 64)
    whole = library_split(name, size).whole
    read, description = from_bytes(to_bytes(whole, {"note": ["ä", 1.5, None]}))
    assert description == {"note": ["ä", 1.5, None]}
    assert read.code == whole.code
    frames = normalized(noise(BATCH, size), library_source(name, size))
    for ours, theirs in zip(read(frames), whole(frames), strict=True):
        assert torch.equal(ours, theirs)
    for node in whole.graph.nodes:
        if node.op == "get_attr":
            ours, theirs = constant(read, node), constant(whole, node)
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride() or 0 in theirs.stride()
    assert to_bytes(read, description) == to_bytes(whole, description)


def test_there_may_be_no_graph() -> None:
    assert from_bytes(to_bytes(None, {"cut": False})) == (None, {"cut": False})


def graph_of(build: Callable[[fx.Graph, fx.Node], fx.Node]) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(build(graph, graph.placeholder("x")))
    return fx.GraphModule({"weight": torch.arange(6.0).view(2, 3).t(), "once": torch.ones(1).expand(4)}, graph)


def test_arguments_of_every_kind_survive() -> None:
    aten = torch.ops.aten

    def build(graph: fx.Graph, x: fx.Node) -> fx.Node:
        weight, once = graph.get_attr("weight"), graph.get_attr("once")
        options = {"dtype": torch.float64, "device": torch.device("cpu"), "layout": torch.strided}
        values = graph.call_function(aten.full_like.default, (weight, float("-inf")), options)
        kept = graph.call_function(aten.clone.default, (weight,), {"memory_format": torch.preserve_format})
        largest = graph.call_function(aten.max.dim, (values, 0, True))
        first = graph.call_function(operator.getitem, (largest, 0))
        return graph.call_function(
            aten.cat.default, ([x, kept, first, graph.call_function(aten.view.default, (once, (2, 2)))],)
        )

    module = graph_of(build)
    read, _ = from_bytes(to_bytes(module, {}))
    assert read.code == module.code
    assert torch.equal(read(torch.zeros(1, 2)), module(torch.zeros(1, 2)))


@pytest.mark.parametrize(
    "build",
    [
        lambda graph, x: graph.call_function(print, (x,)),
        lambda graph, x: graph.call_function(torch.relu, (x,)),
        lambda graph, x: graph.call_method("numpy", (x,)),
        lambda graph, x: graph.call_function(torch.ops.aten.add.Tensor, (x, 1j)),
    ],
)
def test_what_has_no_name_is_not_written(build: Callable) -> None:
    with pytest.raises(TypeError):
        to_bytes(graph_of(build), {})


INPUT = ["placeholder", "x", "x", {"tuple": []}, {"dict": {}}]


def forged(
    op: str,
    target: str,
    *arguments: object,
    name: str = "f",
    options: dict[str, object] | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
    first: list[object] = INPUT,
) -> bytes:
    """A serialized graph with one node between its input and its output."""
    nodes = [first, [op, name, target, {"tuple": list(arguments)}, {"dict": options or {}}]]
    nodes.append(["output", "output", "output", {"tuple": [{"node": name}]}, {"dict": {}}])
    return save(tensors or {"w": torch.zeros(1)}, {"graph": json.dumps({"nodes": nodes, "strides": {}})})


X = {"node": "x"}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ValueError),
        (b"\xff" * 64, ValueError),
        (save({"w": torch.zeros(1)}), KeyError),
        (forged("call_function", "os.system", "true"), AttributeError),
        (forged("call_function", "posix.system.default", "true"), AttributeError),
        (forged("call_function", "aten.__init__.default", X), AttributeError),
        (forged("call_function", "aten.relu.__call__", X), ValueError),
        (forged("call_function", "prims.relu.default", X), ValueError),
        (forged("call_function", "aten.from_file.default", "/etc/passwd", True, 1), ValueError),
        (forged("call_function", "aten.full.default", [1], 1.0), ValueError),
        (forged("call_function", "aten.fill_.Scalar", X, 1.0), ValueError),
        (forged("call_function", "aten.relu.default", X, options={"self=print(1), b": 1}), ValueError),
        (forged("call_function", "getitem", X, 0, options={"a": 1}), ValueError),
        (forged("call_method", "numpy", X), ValueError),
        (forged("call_module", "w", X), ValueError),
        (forged("placeholder", "y=print(1)"), ValueError),
        (forged("placeholder", "lambda"), ValueError),
        (forged("get_attr", "unknown"), ValueError),
        (forged("get_attr", 'w"); print("', tensors={'w"); print("': torch.zeros(1)}), ValueError),
        (forged("call_function", "aten.relu.default", {"node": "later"}), KeyError),
        (forged("call_function", "aten.relu.default", X, {"dtype": "load"}), ValueError),
        (forged("call_function", "aten.relu.default", X, {"code": "1"}), (KeyError, TypeError, AttributeError)),
    ],
)
def test_bytes_of_another_making_are_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_bytes(data)


def test_the_inputs_name_is_no_code(tmp_path: Path) -> None:
    code = f"x=open({str(tmp_path / 'written')!r}, 'w')"
    read, _ = from_bytes(
        forged("call_function", "aten.relu.default", {"node": code}, first=[INPUT[0], code, *INPUT[2:]])
    )
    assert read(torch.tensor([-1.0])).item() == 0
    with pytest.raises(ValueError, match="not allowed in a flat graph"):
        from_bytes(forged("call_function", "aten.relu.default", X, first=[*INPUT[:2], code, *INPUT[3:]]))
    assert not list(tmp_path.iterdir())


def test_a_nodes_name_is_no_code() -> None:
    read, _ = from_bytes(forged("call_function", "aten.relu.default", X, name="f(); import os #"))
    assert "import os" not in read.code
    assert read(torch.tensor([-1.0])).item() == 0
