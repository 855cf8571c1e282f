"""Functional graphs: they compute the same bits and modify nothing, or are refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from saliency_pipeline.models.probe import evaluating
from saliency_pipeline.saliency.engine import split
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.functional import UnsupportedGraphError, make_functional
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.split import split_network
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from tests import rare
from tests.saliency.networks import BATCH, PREDICTED, library_layer, library_source, noise

FRAMES = torch.linspace(-2, 3, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
RELU = torch.nn.functional.relu


class Doing(nn.Module):
    """A convolution, and what is done with its result."""

    def __init__(self, doing: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.doing = doing
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.conv.bias)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.doing(self.conv(x))


def exported(network: nn.Module, frames: Tensor = FRAMES) -> fx.GraphModule:
    with evaluating(network), torch.no_grad():
        return torch.export.export(network, (frames,), strict=False).module()


def twice(x: Tensor) -> Tensor:
    x.add_(1.0)
    return x.mul_(2.0).sigmoid_() + x


def residual(x: Tensor) -> Tensor:
    y = RELU(x)
    y += x
    return RELU(y, inplace=True)


def forked(x: Tensor) -> Tensor:
    before = x * 2
    RELU(x, inplace=True)
    return before + x


def dropped(x: Tensor) -> Tensor:
    y = torch.nn.functional.dropout2d(torch.nn.functional.dropout(x, training=False), training=False)
    y.relu_()
    return x + y


def last_view(x: Tensor) -> Tensor:
    return x.view(2, 4, 64).relu_().flatten(1)


def same_type(x: Tensor) -> Tensor:
    y = x.type_as(x * 2)  # the same tensor
    x.relu_()
    return y


@pytest.mark.parametrize("doing", [twice, residual, forked, dropped, last_view, same_type])
def test_what_is_written_over_is_computed_anew(doing: Callable[[Tensor], Tensor]) -> None:
    network = Doing(doing)
    module = exported(network)
    make_functional(module.graph)
    module.recompile()
    assert not any(node.target._schema.is_mutable for node in module.graph.nodes if hasattr(node.target, "_schema"))
    assert torch.equal(module(FRAMES), network(FRAMES))


def through_a_view(x: Tensor) -> Tensor:
    half = x[:, :2]
    half.relu_()
    return x


def seen_through_a_view(x: Tensor) -> Tensor:
    flat = x.view(2, -1)
    RELU(x, inplace=True)
    return flat


def wider(x: Tensor) -> Tensor:
    return x.add_(torch.ones(1, dtype=torch.float64).to(x.device) * x.mean().double())


def random(x: Tensor) -> Tensor:
    return torch.nn.functional.dropout(x, 0.5, training=True)


def normed(x: Tensor) -> Tensor:
    return torch.nn.functional.batch_norm(x, None, None, training=True)


def filled(x: Tensor) -> Tensor:
    x[:, 0] = 1.0
    return x


@pytest.mark.parametrize("doing", [through_a_view, seen_through_a_view, wider, random, normed, filled])
def test_what_takes_more_is_refused(doing: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedGraphError):
        make_functional(exported(Doing(doing)).graph)


class Overwriting(nn.Module):
    """Writes over the caller's own images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu_().mean((2, 3))


def test_the_networks_input_is_not_written_over() -> None:
    with pytest.raises(UnsupportedGraphError, match="modifies an input or a weight"):
        make_functional(exported(Overwriting(), FRAMES.clone()).graph)


@pytest.mark.parametrize("doing", [through_a_view, seen_through_a_view, same_type, filled])
def test_pytorchs_own_decomposition_serves_the_rest(doing: Callable[[Tensor], Tensor]) -> None:
    class Classifier(Doing):
        def forward(self, x: Tensor) -> Tensor:
            return self.doing(self.norm(self.conv(x))).view(len(x), 4, -1).mean(2)

    network = Classifier(doing).eval()
    whole = split_network(network, [choose_layer(network, 8, "conv")], 8, BATCH).whole
    assert isinstance(whole, fx.GraphModule)
    with torch.no_grad():
        assert torch.allclose(whole(FRAMES)[1], network(FRAMES), atol=1e-5)


ENGINES = [
    (("gradcam",), Placement("torch", "fp32")),
    (("gradcam",), Placement("torch", "bf16")),
    (("gradcam",), Placement("openvino", "fp32")),
    (("gradcam", "gradient"), Placement("torch", "fp32")),
    (("gradcam", "gradient"), Placement("torch", "bf16")),
]


@pytest.mark.parametrize("name", ["test_resnet", *rare("mobilenetv3_small_050", "ghostnet_100")])
def test_maps_are_those_of_pytorchs_own_decomposition(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, layer = library_source(name), library_layer(name)
    splits = [split_network(source.module, [layer], 64, BATCH)]
    monkeypatch.setattr(split, "_functional", split._decomposed)
    splits.append(split_network(source.module, [layer], 64, BATCH))
    for methods, placement in ENGINES:
        options = source, [layer], find_methods(methods), PREDICTED, BATCH, placement
        direct, general = (Explainer(*options, each).explain(noise(3)) for each in splits)
        assert np.array_equal(direct.prediction_score, general.prediction_score)
        for method in methods:
            assert np.array_equal(direct.maps[method], general.maps[method]), (placement, method)
