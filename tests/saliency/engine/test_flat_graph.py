"""Flat graphs: shapes without values."""

import torch
from torch import Tensor, fx, nn

from saliency_pipeline.saliency.engine.flat_graph import shapes_of
from saliency_pipeline.saliency.engine.locality import stages_of
from tests.saliency.networks import BATCH


class Network(nn.Module):
    def __init__(self, by_values: bool) -> None:
        super().__init__()
        self.by_values = by_values
        self.register_buffer("kernel", torch.ones(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.ops.aten.conv2d.default(x, self.kernel, None, [2, 2])
        return torch.ops.aten.nonzero.default(x) if self.by_values else torch.ops.aten.relu.default(x)


def test_shapes_are_those_of_a_pass() -> None:
    graph = fx.symbolic_trace(Network(by_values=False))
    shapes = {node.name: shape for node, shape in shapes_of(graph, BATCH, 9).items()}
    passed = tuple(graph(torch.zeros(BATCH, 3, 9, 9)).shape)
    assert list(shapes.values()) == [(BATCH, 3, 9, 9), (4, 3, 3, 3), passed, passed]
    assert passed == (BATCH, 4, 4, 4)


def test_where_a_shape_depends_on_values_there_are_no_shapes_and_no_local_stages() -> None:
    graph = fx.symbolic_trace(Network(by_values=True))
    assert shapes_of(graph, BATCH, 9) == {}
    assert stages_of(graph, BATCH, 9, (0, 3, 6), 3) == ()
