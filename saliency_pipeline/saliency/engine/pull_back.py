"""Signals pulled back through a flat graph, from its results to the frames, by a rule per operator.

The gradient is one such signal; a method with a modified backward pass has other rules. The graph has every call of
every operator as a node of its own, so that a rule applies wherever the operator is called: as a module that is used
once or often, as a function, in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.engine.flat_graph import call, constant

Pull = Callable[[Tensor], tuple[Tensor | None, ...]]
"""From the signal at an operator's result to the signals at what it reads; called once per explained class."""


@dataclass
class Step:
    """One operator of a graph in a forward pass.

    Attributes:
        node: the operator's node.
        sources: the nodes that it reads and that depend on the frames.
        graph: the graph, for its constants.
        values: what it reads, by node.
        baseline_values: the same in the forward pass of the baseline; empty if there is none.
    """

    node: fx.Node
    sources: tuple[fx.Node, ...]
    graph: fx.GraphModule
    values: Mapping[fx.Node, Any]
    baseline_values: Mapping[fx.Node, Any]

    def arguments(self, *defaults: Any) -> tuple[Any, ...]:
        """The operator's positional arguments; those that it was called without are the last ones of `defaults`."""
        own = tuple(fx.node.map_arg(self.node.args, self.values.__getitem__))
        return (*own, *defaults[len(own) :])

    def output(self) -> Any:
        """Compute the operator's result."""
        return call(self.node, self.values)

    @cached_property
    def baseline(self) -> Any:
        """The operator's result in the forward pass of the baseline; a rule may set what it computed in another way."""
        return call(self.node, self.baseline_values)


Rule = Callable[[Step], tuple[Any, Pull | None]]
"""From an operator to its result, and how to pull a signal back to each of its sources."""

Choose = Callable[[fx.Node, tuple[fx.Node, ...]], Rule | None]
"""From a node and those that it reads and that depend on the frames to the node's rule; None where it has none."""


class Table(ABC):
    """The rules of a method. Equal tables pull back equal signals, so that methods share them: a frozen dataclass."""

    @abstractmethod
    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        """The rule of a node that reads `sources`, which depend on the frames, or None."""


@dataclass(frozen=True)
class PulledBack:
    """What a table pulls back for T explained classes.

    Attributes:
        signals: of each class, at the normalized frames (N, 3, S, S), for a signal of 1 at the class's logit.
        scores: logits (N, T) of the explained classes in that forward pass, float32.
        baseline_scores: the same at the baselines; None if there are none.
    """

    signals: tuple[Tensor, ...]
    scores: Tensor
    baseline_scores: Tensor | None


class Record:
    """One forward pass through a graph, and for each node on the way how to pull a signal back.

    Attributes:
        results: what the graph returns.
        baseline: the last of these at the baselines, or None.
    """

    @torch.no_grad()
    def __init__(self, graph: fx.GraphModule, frames: Tensor, choose: Choose, baselines: Tensor | None = None) -> None:
        """Run the graph.

        Args:
            graph: a flat graph that reads (N, 3, S, S).
            frames: (N, 3, S, S).
            choose: the rule of each node.
            baselines: (N, 3, S, S) at which the graph runs as well, for rules that compare.

        Raises:
            SalpipeError: an operator has no rule.
        """
        self.steps: list[tuple[fx.Node, tuple[fx.Node, ...], Pull]] = []
        values: dict[fx.Node, Any] = {}
        others: dict[fx.Node, Any] = {}
        active: set[fx.Node] = set()
        last_use = {source: node for node in graph.graph.nodes for source in node.all_input_nodes}
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = frames
                others[node] = baselines
                active.add(node)
                self.start = node
            elif node.op == "get_attr":
                values[node] = others[node] = constant(graph, node)
            elif node.op == "output":
                self.ends: tuple[fx.Node, ...] = node.args[0] if isinstance(node.args[0], tuple) else (node.args[0],)
            else:
                sources = tuple(s for s in node.all_input_nodes if s in active)
                step = Step(node, sources, graph, values, others)
                if not sources:
                    values[node] = others[node] = step.output()
                else:
                    values[node] = self._run(step, choose)
                    if baselines is not None:
                        others[node] = step.baseline
                    if isinstance(values[node], _Several) or (self.steps and self.steps[-1][0] is node):
                        active.add(node)
            for source in node.all_input_nodes:
                if last_use[source] is node and source is not self.start and node.op != "output":
                    values.pop(source)
                    others.pop(source, None)
        self.results: tuple[Tensor, ...] = tuple(values[end] for end in self.ends)
        self.baseline: Tensor | None = None if baselines is None else others[self.ends[-1]]

    def _run(self, step: Step, choose: Choose) -> Any:
        rule = choose(step.node, step.sources)
        if rule is None:
            raise SalpipeError(f"the network has {operator_name(step.node)}, which has no rule; use another method")
        value, pull = rule(step)
        if pull:
            whole = step.values[step.sources[0]]
            sources = tuple(whole.leaves) if isinstance(whole, _Several) else step.sources
            self.steps.append((step.node, sources, pull))
        return value

    def pull_back(self, signal: Tensor, start: fx.Node | None = None, release: bool = False) -> Tensor:
        """The signal at the frames, for one at the last result or at another node.

        Args:
            signal: shaped as the node's value.
            start: the node; the graph's last result by default.
            release: free what the record keeps on the way; nothing can be pulled back afterwards.
        """
        pending: dict[fx.Node, Tensor] = {self.ends[-1] if start is None else start: signal}
        remaining = self.steps if release else list(self.steps)
        while remaining:
            node, sources, pull = remaining.pop()
            upstream = pending.pop(node, None)
            if upstream is None:
                continue
            for source, part in zip(sources, pull(upstream), strict=True):
                if part is not None:
                    pending[source] = pending[source] + part if source in pending else part
        return pending[self.start]


def pulled_back(record: Record, targets: Tensor) -> PulledBack:
    """Signals at the frames for each explained class (N, T); the record cannot be used afterwards."""
    logits, last = record.results[-1], targets.shape[1] - 1
    signals = []
    for t, classes in enumerate(targets.unbind(1)):
        one = torch.zeros_like(logits).scatter_(1, classes[:, None], 1)
        signals.append(record.pull_back(one, release=t == last))
    others = record.baseline
    return PulledBack(tuple(signals), logits.gather(1, targets), None if others is None else others.gather(1, targets))


@dataclass(frozen=True)
class _Several:
    """The results of an operator that has several (a split), attached to the leaves they were computed from."""

    outputs: Sequence[Tensor]
    leaves: dict[fx.Node, Tensor]


def by_autograd(step: Step, dtype: torch.dtype | None = None) -> tuple[Any, Pull | None]:
    """The rule of the gradient for any operator: its own autograd formula.

    Args:
        step: the operator.
        dtype: type of the pulled signals, if it is not that of what they belong to.
    """
    whole = step.values[step.sources[0]]
    if isinstance(whole, _Several):
        value, leaves = whole.outputs[step.node.args[1]], whole.leaves  # type: ignore[index]
    else:
        leaves = {source: step.values[source].detach().requires_grad_() for source in step.sources}
        with torch.enable_grad():
            value = call(step.node, {**step.values, **leaves})
        if not isinstance(value, Tensor):
            return _Several(value, leaves), None
    if not value.requires_grad:
        return value, None

    def pull(signal: Tensor) -> tuple[Tensor | None, ...]:
        # kept, because every target pulls its own signal back
        parts = torch.autograd.grad(
            value, list(leaves.values()), signal.to(value.dtype), retain_graph=True, allow_unused=True
        )
        return parts if dtype is None else tuple(None if part is None else part.to(dtype) for part in parts)

    return value.detach(), pull


def operator_without_rule(graph: fx.GraphModule, table: Table) -> str | None:
    """The first operator of a graph that depends on the frames and has no rule in a table, as `aten.gelu`, or None."""
    active: set[fx.Node] = set()
    for node in graph.graph.nodes:
        sources = tuple(source for source in node.all_input_nodes if source in active)
        if node.op == "call_function" and sources and table.rule(node, sources) is None:
            return operator_name(node)
        if node.op == "placeholder" or sources:
            active.add(node)
    return None


def operator_name(node: fx.Node) -> str:
    """An operator without its overload, as `aten.gelu`."""
    return str(getattr(node.target, "overloadpacket", node.target))
