"""Methods that a network is not made for are refused, and no others."""

import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.capability import check_capable
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.registry import find_methods
from tests.saliency.networks import BATCH, own_source


class Branched(nn.Module):
    """Two branches, which join before the last layer; `decides`: what it computes depends on the frame's values."""

    def __init__(self, decides: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2)
        self.last, self.fc, self.decides = nn.Conv2d(4, 5, 3), nn.Linear(5, 7), decides
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.left(x).relu() + self.right(x)
        if self.decides and y.detach().sum() > 1e9:
            y = 2 * y
        return self.fc(torch.tanh(self.last(y)).mean((2, 3)))


def check(methods: list[str], decides: bool = False) -> None:
    source = own_source(Branched(decides), 16, 7)
    layers, named = explained_layers(source, find_methods(methods))
    check_capable(source, named, layers, BATCH)


def test_a_layer_is_cut_whatever_other_layers_are_explained() -> None:
    check(["ablationcam:layer=last", "gradcam:layer=left"])
    with pytest.raises(SalpipeError, match="--method ablationcam:layer=left: tiny cannot be cut at left; use a layer"):
        check(["ablationcam:layer=left", "gradcam:layer=last"])


@pytest.mark.parametrize("method", ["ablationcam", "fullgrad"])
def test_a_network_that_cannot_be_exported(method: str) -> None:
    with pytest.raises(SalpipeError, match=f"--method {method}: tiny cannot be exported; use another method"):
        check([method], decides=True)
    check(["gradcam", "gradient", "captum:DeepLift"], decides=True)
