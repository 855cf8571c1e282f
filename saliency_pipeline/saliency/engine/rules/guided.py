"""Guided backpropagation and DeconvNet: the gradient, but each ReLU passes on only what is positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from saliency_pipeline.saliency.engine.pull_back import Pull, Rule, Step, Table
from saliency_pipeline.saliency.engine.rules.linear import gradient
from saliency_pipeline.saliency.engine.rules.operators import (
    FACTORS,
    GATES,
    MAXIMA,
    bounds,
    is_linear,
    is_product,
    is_relu,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Guided(Table):
    """The gradient with another rule for ReLU, wherever it is called and also where it has an upper bound.

    Gates (sigmoid, as in squeeze-and-excitation) and products have their gradient. Activations that are no ReLU have no
    rule: what is positive there is not what was passed on.

    Attributes:
        rule_of_relu: `guided` or `deconvnet`.
    """

    rule_of_relu: str = "guided"

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        """The rule of a node, or None."""
        if is_relu(node):
            return guided if self.rule_of_relu == "guided" else deconvnet
        if is_linear(node, sources) or is_product(node, sources):
            return gradient
        return gradient if node.target in MAXIMA or node.target in GATES or node.target in FACTORS else None


def guided(step: Step) -> tuple[Any, Pull]:
    """s_in = s_out [s_out > 0] [0 < x < high] (Springenberg et al., arXiv 1412.6806, section 3.4)."""
    value = step.output()
    low, high = bounds(step.node)
    if high == float("inf"):
        return value, lambda signal: (aten.threshold_backward(signal.clamp_min(0), value, 0),)
    return value, lambda signal: (aten.hardtanh_backward(signal.clamp_min(0), value, low, high),)


def deconvnet(step: Step) -> tuple[Tensor, Pull]:
    """s_in = s_out [s_out > 0], whatever x was (Zeiler and Fergus, arXiv 1311.2901, section 2.1)."""
    return step.output(), lambda signal: (signal.clamp_min(0),)
