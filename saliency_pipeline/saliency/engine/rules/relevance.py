"""Layer-wise relevance propagation: each operator divides the relevance of its result among what it read.

A rule divides the relevance R_j of an output z_j = sum_i c_ij + ... in proportion to contributions c_ij:
R_i = sum_j c_ij R_j / (z_j + epsilon sign z_j), with sign 0 = 1. What a bias contributes is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.flat_graph import call, constant
from saliency_pipeline.saliency.engine.pull_back import Pull, Rule, Step, Table, by_autograd
from saliency_pipeline.saliency.engine.rules.linear import CONVOLUTIONS, LAYERS, LinearLayer, linear_layer
from saliency_pipeline.saliency.engine.rules.operators import (
    GATES,
    KINKED,
    MAXIMA,
    SMOOTH,
    VIEWS,
    is_clipping,
    is_linear,
    is_product,
)

EPSILON = 1e-6
GAMMA = 0.25


@dataclass(frozen=True)
class Relevance(Table):
    """A composite: which rule a linear layer has by its place in the network, and the rules of all other operators.

    First layers are those that no other linear layer (convolution or matrix product with constant weights) precedes;
    among the others convolutions and dense layers, which are matrix products, have a rule each.

    Attributes:
        composite: `epsilon-plus-flat` or `epsilon-gamma-box`.
        low: darkest color of the normalized frame, by channel, for the box rule.
        high: brightest color.
    """

    composite: str = "epsilon-plus-flat"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        """The rule of a node, or None."""
        if node.target in LAYERS:
            return self._of_layer(node) if is_linear(node, sources) else None
        if node.target in VIEWS or node.target in MAXIMA:
            return by_autograd
        if is_linear(node, sources):
            return epsilon
        if is_clipping(node, sources) or node.target in SMOOTH or node.target in KINKED:
            return passed
        if is_product(node, sources) and gate_of(sources) is not None:
            return signal_takes_all
        return None

    def _of_layer(self, node: fx.Node) -> Rule:
        if is_first(node):
            return flat if self.composite == "epsilon-plus-flat" else self._box
        if node.target not in CONVOLUTIONS:
            return epsilon_of_layer
        return plus if self.composite == "epsilon-plus-flat" else gamma

    def _box(self, step: Step) -> tuple[Tensor, Pull]:
        return box(step, self.low, self.high)


def is_first(node: fx.Node) -> bool:
    """Return whether no other linear layer precedes a node."""
    pending, seen = [node], {node}
    while pending:
        for source in pending.pop().all_input_nodes:
            if source.target in LAYERS:
                return False
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return True


def gate_of(factors: tuple[fx.Node, ...]) -> int | None:
    """Which of two factors is a gate with values in [0, 1], as in squeeze-and-excitation; None if not exactly one."""
    gates = [_behind_views(factor).target in GATES for factor in factors]
    return gates.index(True) if gates.count(True) == 1 else None


def _behind_views(node: fx.Node) -> fx.Node:
    while node.target in VIEWS and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def stabilized(z: Tensor) -> Tensor:
    """Z + epsilon sign z, with sign 0 = 1.

    >>> stabilized(torch.tensor([-2.0, 0.0]))
    tensor([-2.0000e+00,  1.0000e-06])
    """
    return z + torch.full_like(z, EPSILON).where(z >= 0, -EPSILON)


def passed(step: Step) -> tuple[Tensor, Pull]:
    """Activations: the relevance of the result is that of the input."""
    return step.output(), lambda relevance: (relevance,)


def signal_takes_all(step: Step) -> tuple[Tensor, Pull]:
    """Products with a gate: the relevance goes to the signal, none to the gate (Arras et al., arXiv 1706.07206)."""
    place = gate_of(step.sources)
    shape = step.values[step.sources[1 if place == 0 else 0]].shape

    def pull(relevance: Tensor) -> tuple[Tensor | None, ...]:
        signal = relevance.sum_to_size(shape)
        return (None, signal) if place == 0 else (signal, None)

    return step.output(), pull


def epsilon(step: Step) -> tuple[Tensor, Pull]:
    """Sums, averages and products with constants: c_ij = w_ij x_i (Bach et al., doi:10.1371/journal.pone.0130140)."""
    value, pull = by_autograd(step)
    assert pull is not None
    inputs, denominator = [step.values[source] for source in step.sources], stabilized(value)

    def divided(relevance: Tensor) -> tuple[Tensor | None, ...]:
        parts = zip(inputs, pull(relevance / denominator), strict=True)
        return tuple(None if part is None else x * part for x, part in parts)

    return value, divided


def epsilon_of_layer(step: Step) -> tuple[Tensor, Pull]:
    """Linear layers: c_ij = w_ij x_i, as `epsilon`."""
    layer, x = linear_layer(step), step.arguments()[0]
    value = layer.output(step)
    denominator = stabilized(value)
    return value, lambda relevance: (x * layer.backward(relevance / denominator, layer.weight),)


def flat(step: Step) -> tuple[Tensor, Pull]:
    """First layers: c_ij = 1, so that each output's relevance is shared evenly by its field of view.

    Lapuschkin et al., *Unmasking Clever Hans predictors* (arXiv 1902.10178).
    """
    layer = linear_layer(step)
    value = layer.output(step)
    # padding is no part of the frame: no color changes it
    first, second = _between(step, (0.0,), (1.0,))
    inputs, ones = (first != second).to(value.dtype), torch.ones_like(layer.weight)
    denominator = stabilized(layer.forward(inputs, ones))
    return value, lambda relevance: (inputs * layer.backward(relevance / denominator, ones),)


def plus(step: Step) -> tuple[Tensor, Pull]:
    """Convolutions: c_ij = max(w_ij x_i, 0), with the bias's positive part (Montavon et al., arXiv 1512.02479).

    max(w x, 0) = max(w, 0) max(x, 0) + min(w, 0) min(x, 0).
    """
    layer = linear_layer(step)
    value = layer.output(step)
    positive, negative, above, below = _parts(step.arguments()[0], layer.weight)
    denominator = stabilized(_raising(layer, positive, negative, above, below))

    def pull(relevance: Tensor) -> tuple[Tensor]:
        share = relevance / denominator
        result = positive * layer.backward(share, above)
        return (result if negative is None else result + negative * layer.backward(share, below),)

    return value, pull


def gamma(step: Step) -> tuple[Tensor, Pull]:
    """Convolutions: c_ij = w_ij x_i + gamma max(w_ij x_i, 0) where z_j >= 0, with min where z_j < 0.

    Montavon et al., *Layer-wise relevance propagation: an overview* (doi:10.1007/978-3-030-28954-6_10), for inputs and
    outputs of either sign.
    """
    layer = linear_layer(step)
    value = layer.output(step)
    positive, negative, above, below = _parts(step.arguments()[0], layer.weight)
    upper = _raising(layer, positive, negative, above, below)
    # z = upper + lower: the sums of the positive and of the negative contributions
    favoring = value >= 0
    denominator = stabilized(value + GAMMA * upper.where(favoring, value - upper))
    raised, lowered = layer.weight + GAMMA * above, layer.weight + GAMMA * below

    def pull(relevance: Tensor) -> tuple[Tensor]:
        share = relevance / denominator
        up, down = share * favoring, share * ~favoring
        result = positive * (layer.backward(up, raised) + layer.backward(down, lowered))
        if negative is not None:
            result = result + negative * (layer.backward(up, lowered) + layer.backward(down, raised))
        return (result,)

    return value, pull


def box(step: Step, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Tensor, Pull]:
    """First layers: c_ij = w_ij x_i - max(w_ij, 0) l_i - min(w_ij, 0) h_i >= 0, for pixels in [l, h].

    The zB rule of Montavon et al., arXiv 1512.02479. The bounds are passed through what precedes the layer, so that
    padding stays 0.
    """
    layer, x = linear_layer(step), step.arguments()[0]
    value = layer.output(step)
    lowest, highest = _between(step, low, high)
    above, below = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
    total = layer.forward(x, layer.weight) - layer.forward(lowest, above) - layer.forward(highest, below)
    denominator = stabilized(total)

    def pull(relevance: Tensor) -> tuple[Tensor]:
        share = relevance / denominator
        result = x * layer.backward(share, layer.weight) - lowest * layer.backward(share, above)
        return (result - highest * layer.backward(share, below),)

    return value, pull


def _parts(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Positive and negative part of an input, the latter None if it is 0, and of a weight."""
    above, below = weight.clamp_min(0), weight.clamp_max(0)
    if bool((x < 0).any()):
        return x.clamp_min(0), x.clamp_max(0), above, below
    return x, None, above, below


def _raising(layer: LinearLayer, positive: Tensor, negative: Tensor | None, above: Tensor, below: Tensor) -> Tensor:
    """The sum of the positive contributions to each output, for the parts of `_parts`; the bias's positive part too."""
    total = layer.forward(positive, above, None if layer.bias is None else layer.bias.clamp_min(0))
    return total if negative is None else total + layer.forward(negative, below)


def _between(step: Step, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Bounds of what a first layer reads, for frames with pixels between two colors."""
    source = step.node.args[0]
    assert isinstance(source, fx.Node)
    ends = [_at(step, source, color) for color in (low, high)]
    return torch.minimum(*ends), torch.maximum(*ends)


def _at(step: Step, node: fx.Node, color: tuple[float, ...]) -> Tensor:
    """What a node before the first layer is for frames of one color."""
    if node.op == "placeholder":
        frames: Tensor = step.values[node]
        values = torch.tensor(color, dtype=frames.dtype, device=frames.device)[:, None, None]
        return values.expand_as(frames).contiguous(memory_format=torch.channels_last)
    if node.op == "get_attr":
        return constant(step.graph, node)
    return call(node, {source: _at(step, source, color) for source in node.all_input_nodes})  # type: ignore[no-any-return]
