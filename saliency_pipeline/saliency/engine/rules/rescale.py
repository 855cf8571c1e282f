"""DeepLIFT's Rescale rule: multipliers, whose products with differences from a baseline sum to that of the logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.pull_back import Pull, Rule, Step, Table
from saliency_pipeline.saliency.engine.rules.linear import gradient
from saliency_pipeline.saliency.engine.rules.operators import (
    KINKED,
    MAXIMA,
    SMOOTH,
    bounds,
    is_clipping,
    is_linear,
    is_product,
)

aten = torch.ops.aten
CLOSE = 1e-2
"""Differences up to this have the derivative in the middle between x and x0 for smooth functions. In float32 the
quotient is off by about 6e-8 / difference because of rounding, the derivative by difference^2 / 24: equal here."""

NEAR = 1e-4
"""The same for functions whose derivative jumps, where the derivative is right only if no jump is between them."""


@dataclass(frozen=True)
class Rescale(Table):
    """The Rescale rule for functions of one number, a rule for maxima, and for products of two signals.

    Attributes:
        baseline: name of the baseline, so that tables are equal only if their baselines are.
    """

    baseline: str

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        """The rule of a node, or None."""
        if is_linear(node, sources):
            return gradient
        if is_clipping(node, sources):
            return clipped
        if node.target in SMOOTH or node.target in KINKED:
            return smooth
        if node.target in MAXIMA:
            return maximum
        return product if is_product(node, sources) else None


def clipped(step: Step) -> tuple[Tensor, Pull]:
    """m_in = m_out (y - y0) / (x - x0), the gradient where x = x0 (Shrikumar et al., arXiv 1704.02685).

    The quotient is exact for the smallest differences, as the function is the identity or constant.
    """
    (source,) = step.sources
    x, x0 = step.values[source], step.baseline_values[source]
    value, difference = step.output(), x - x0
    multiplier = (value - step.baseline).div_(difference)
    equal = difference == 0
    if bool(equal.any()):
        low, high = bounds(step.node)
        multiplier = torch.where(equal, ((x > low) & (x < high)).to(value.dtype), multiplier)
    return value, lambda signal: (signal * multiplier,)


def smooth(step: Step) -> tuple[Tensor, Pull]:
    """The same for functions with a derivative, which replaces the quotient where x and x0 are close."""
    (source,) = step.sources
    x, x0 = step.values[source], step.baseline_values[source]
    value, difference = step.output(), x - x0
    with torch.enable_grad():
        middle = ((x + x0) / 2).requires_grad_()
        between = Step(step.node, step.sources, step.graph, {**step.values, source: middle}, {}).output().sum()
    derivative = torch.autograd.grad(between, middle)[0]
    close = CLOSE if step.node.target in SMOOTH else NEAR
    multiplier = ((value - step.baseline) / difference).where(difference.abs() > close, derivative)
    return value, lambda signal: (signal * multiplier,)


def maximum(step: Step) -> tuple[Tensor, Pull]:
    """The part of a difference z - z0 of maxima above z0 goes to the place of z, that below it to the place of z0.

    With t = max(z, z0) these are t - z0 and z - t. Each share divided by x - x0 is a multiplier; where x = x0 it is the
    gradient.
    """
    (source,) = step.sources
    x, x0 = step.values[source], step.baseline_values[source]
    window = step.arguments(None, None, [], (0, 0), (1, 1), False)[1:]
    value, places = aten.max_pool2d_with_indices(x, *window)
    value0, places0 = aten.max_pool2d_with_indices(x0, *window)
    above, below = torch.maximum(value, value0) - value0, value - torch.maximum(value, value0)
    difference = x - x0
    equal = difference == 0

    def pull(signal: Tensor) -> tuple[Tensor]:
        back = aten.max_pool2d_with_indices_backward
        total = back(signal * above, x, *window, places) + back(signal * below, x0, *window, places0)
        return (torch.where(equal, back(signal, x, *window, places), total / difference),)

    return value, pull


def product(step: Step) -> tuple[Tensor, Pull]:
    """Each factor has the mean of the other one as multiplier: x y - x0 y0 = dx (y + y0) / 2 + dy (x + x0) / 2."""
    means = [(step.values[source] + step.baseline_values[source]) / 2 for source in step.sources]
    shapes = [mean.shape for mean in means]

    def pull(signal: Tensor) -> tuple[Tensor, ...]:
        others = zip(reversed(means), shapes, strict=True)
        return tuple((signal * other).sum_to_size(shape) for other, shape in others)

    return step.output(), pull
