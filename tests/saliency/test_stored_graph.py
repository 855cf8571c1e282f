"""Graphs as bytes: what is read computes the same bits, and runs nothing but PyTorch's own operators."""

import json
import operator
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save
from torch import fx

from saliency_pipeline.saliency.split import constant
from saliency_pipeline.saliency.stored_graph import from_bytes, to_bytes
from tests.saliency.networks import BATCH, library_source, library_split, noise, normalised

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
RARE = [pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "convnext_atto", VIT, SWIN)]
SIZES = {VIT: 224, SWIN: 224}


@pytest.mark.parametrize("name", ["test_resnet", *RARE])
def test_what_is_read_is_what_was_written(name: str) -> None:
    size = SIZES.get(name, 64)
    whole = library_split(name, size).whole
    read, about = from_bytes(to_bytes(whole, {"note": ["ä", 1.5, None]}))
    assert about == {"note": ["ä", 1.5, None]}
    assert read.code == whole.code
    frames = normalised(noise(BATCH, size), library_source(name, size))
    for ours, theirs in zip(read(frames), whole(frames), strict=True):
        assert torch.equal(ours, theirs)
    for node in whole.graph.nodes:
        if node.op == "get_attr":
            ours, theirs = constant(read, node), constant(whole, node)
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride() or 0 in theirs.stride()
    assert to_bytes(read, about) == to_bytes(whole, about)


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
        values = graph.call_function(aten.full.default, ([3, 2], float("-inf")), options)
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


def forged(*node: object, tensors: dict[str, torch.Tensor] | None = None) -> bytes:
    nodes = [["placeholder", "x", "x", {"tuple": []}, {"dict": {}}], [*node, {"dict": {}}]]
    nodes.append(["output", "output", "output", {"tuple": [{"node": str(node[1])}]}, {"dict": {}}])
    return save(tensors or {"w": torch.zeros(1)}, {"graph": json.dumps({"nodes": nodes, "strides": {}})})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 64,
        save({"w": torch.zeros(1)}),
        forged("call_function", "f", "os.system", {"tuple": ["true"]}),
        forged("call_function", "f", "posix.system.default", {"tuple": ["true"]}),
        forged("call_function", "f", "aten.__init__.default", {"tuple": []}),
        forged("call_function", "f", "aten.relu.__call__", {"tuple": [{"node": "x"}]}),
        forged("call_method", "f", "numpy", {"tuple": [{"node": "x"}]}),
        forged("call_module", "f", "w", {"tuple": [{"node": "x"}]}),
        forged("get_attr", "f", "unknown", {"tuple": []}),
        forged("get_attr", "f", 'w"); print("', {"tuple": []}, tensors={'w"); print("': torch.zeros(1)}),
        forged("call_function", "f", "aten.relu.default", {"tuple": [{"node": "later"}]}),
        forged("call_function", "f", "aten.relu.default", {"tuple": [{"dtype": "load"}]}),
        forged("call_function", "f", "aten.relu.default", {"tuple": [{"code": "1"}]}),
    ],
)
def test_bytes_of_another_making_are_refused(data: bytes) -> None:
    with pytest.raises(Exception, match=r".*"):
        from_bytes(data)


def test_names_are_no_code() -> None:
    read, _ = from_bytes(forged("call_function", "f(); import os #", "aten.relu.default", {"tuple": [{"node": "x"}]}))
    assert "import os" not in read.code
    assert read(torch.tensor([-1.0])).item() == 0
