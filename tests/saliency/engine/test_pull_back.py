"""The recorder: with autograd's rules it is autograd, from every node; it keeps nothing longer than it must."""

import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, fx

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.saliency.engine.pull_back import Record, Rule, Table, operator_without_rule, pulled_back
from saliency_pipeline.saliency.engine.rules.linear import gradient
from saliency_pipeline.saliency.engine.split import close, split_network
from tests.saliency.networks import BATCH
from tests.saliency.traps import CLASSES, KINDS, SIZE, Trap

aten = torch.ops.aten


@dataclass(frozen=True)
class Plain(Table):
    """The gradient, except of one operator, which has no rule."""

    without: object = None

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        return None if node.target is self.without else gradient


def graph_of(kind: str) -> tuple[Trap, fx.GraphModule]:
    network = Trap(kind)
    graph = split_network(network, (), SIZE, BATCH).whole
    assert isinstance(graph, fx.GraphModule)
    return network, graph


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_gradients_rules_it_is_autograd(kind: str) -> None:
    network, graph = graph_of(kind)
    frames, targets = probe_frames(SIZE, BATCH), torch.tensor([[0, 3], [4, 1]])
    result = pulled_back(Record(graph, frames, Plain().rule), targets)
    leaf = frames.clone().requires_grad_()
    logits = network(leaf)
    for t, signal in enumerate(result.signals):
        (want,) = torch.autograd.grad(logits.gather(1, targets[:, t : t + 1]).sum(), leaf, retain_graph=True)
        assert close(signal, want, 1e-5)
    assert close(result.scores, logits.gather(1, targets).detach(), 1e-5)
    assert result.baseline_scores is None


def test_a_signal_may_start_at_any_node() -> None:
    network, graph = graph_of("residual")
    frames = probe_frames(SIZE, BATCH)
    record = Record(graph, frames, Plain().rule)
    start = next(node for node in graph.graph.nodes if node.target is aten.conv2d.default)
    signal = torch.randn(BATCH, 6, SIZE, SIZE)
    leaf = frames.clone().requires_grad_()
    (want,) = torch.autograd.grad(network.a(leaf), leaf, signal)
    assert close(record.pull_back(signal, start), want, 1e-5)


def test_the_baselines_pass_through_the_same_graph() -> None:
    network, graph = graph_of("pooling")
    frames, baselines = probe_frames(SIZE, 2 * BATCH).split(BATCH)
    result = pulled_back(Record(graph, frames, Plain().rule, baselines), torch.full((BATCH, 1), CLASSES - 1))
    assert result.baseline_scores is not None
    assert close(result.baseline_scores, network(baselines)[:, -1:], 1e-5)


def test_an_operator_without_a_rule_is_named() -> None:
    _, graph = graph_of("residual")
    assert operator_without_rule(graph, Plain()) is None
    assert operator_without_rule(graph, Plain(aten.relu.default)) == "aten.relu"
    with pytest.raises(SalpipeError, match=r"the network has aten\.relu, which has no rule; use another method"):
        Record(graph, probe_frames(SIZE, BATCH), Plain(aten.relu.default).rule)


def test_nothing_is_kept_after_the_last_class() -> None:
    _, graph = graph_of("relu6")
    record = Record(graph, probe_frames(SIZE, BATCH), Plain().rule)
    kept = weakref.ref(record)
    one: Tensor = torch.ones(BATCH, CLASSES)
    first = record.pull_back(one)
    assert torch.equal(record.pull_back(one, release=True), first)
    assert record.steps == []
    gc.disable()
    try:
        del record
        assert kept() is None
    finally:
        gc.enable()
