"""A method that compares an image with others, in one line."""

from dataclasses import dataclass

from torch import Tensor

from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method


@dataclass(frozen=True)
class Compared(Method):
    """Distance of each pixel from the mean of the background; its sum as residual."""

    name = "compared"
    needs = Need.NOTHING
    convention = "|x - mean of the background|"
    paper = "none"
    class_specific = False
    needs_background = True
    complete = True

    def maps(self, ask: Answers) -> Tensor:
        return (ask.pixels() - ask.background().mean(0)).abs().sum(1, keepdim=True)

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        return maps.sum((2, 3))
