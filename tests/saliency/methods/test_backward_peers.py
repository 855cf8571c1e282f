"""Modified backward passes against captum where captum is right, and where it is silently wrong."""

import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from torch import Tensor, fx, nn

from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.saliency.engine.pull_back import Record, Rule, pulled_back
from saliency_pipeline.saliency.engine.rules.linear import LAYERS
from saliency_pipeline.saliency.engine.rules.relevance import Relevance, epsilon_of_layer, plus
from saliency_pipeline.saliency.engine.split import split_network
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import BATCH, noise, normalized, own_explainer, own_source, relative_error

SIZE, CLASSES, TARGET = 16, 5, 2
FRAMES = noise(BATCH, SIZE, seed=6)


class Modules(nn.Module):
    """Convolutions, activations as modules that are used once, pooling, two linear layers."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1),
            activation(),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(48, 10), activation(), nn.Linear(10, CLASSES))
        if norm:
            self.features[1].running_mean = torch.randn(8) * 0.2
            self.features[1].running_var = torch.rand(8) + 0.2
        self.features[0].weight.data *= 4
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


def ours(network: nn.Module, *methods: str) -> dict[str, np.ndarray]:
    target = Target("fixed", index=TARGET)
    maps = own_explainer(network, SIZE, CLASSES, methods, target, layer="features.5").explain(FRAMES).maps
    return {name: each[:, 0] for name, each in maps.items()}


def captums(name: str, network: nn.Module, *layers: nn.Module, **options: Any) -> Tensor:
    """An attribution of captum, (N, 3, S, S)."""
    pixels = normalized(FRAMES, own_source(network, SIZE, CLASSES)).requires_grad_()
    with warnings.catch_warnings():
        # captum announces its hooks
        warnings.simplefilter("ignore")
        return getattr(captum.attr, name)(network, *layers).attribute(pixels, target=TARGET, **options).detach()


@pytest.mark.parametrize(
    ("method", "name"),
    [("guided-backprop:rule=guided", "GuidedBackprop"), ("guided-backprop:rule=deconvnet", "Deconvolution")],
)
def test_guided_maps_are_captums(method: str, name: str) -> None:
    network = Modules()
    assert relative_error(ours(network, method)[method], captums(name, network).abs().amax(1).numpy()) < 1e-4


def test_guided_gradcam_is_captums() -> None:
    network = Modules()
    want = captums("GuidedGradCam", network, network.features[5], interpolate_mode="bilinear").abs().amax(1)
    assert relative_error(ours(network, "guided-gradcam")["guided-gradcam"], want.numpy()) < 1e-4


@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_deeplift_is_captums(baseline: str) -> None:
    network, name = Modules(), f"deeplift:baseline={baseline}"
    # pooling beside no activation, see below
    _, norm, relu, pool, *_ = network.features
    network.features[1], network.features[2], network.features[3] = pool, norm, relu
    want = captums("DeepLift", network, baselines=0.0 if baseline == "mean" else -1.0).sum(1)
    assert relative_error(ours(network, name)[name], want.numpy()) < 1e-3


def test_pooling_beside_relu_keeps_the_sum_here_and_not_in_captum() -> None:
    network, name = Modules(), "deeplift:baseline=black"
    pixels = normalized(FRAMES, own_source(network, SIZE, CLASSES))
    change = (network(pixels) - network(torch.full_like(pixels, -1.0)))[:, TARGET].numpy()
    np.testing.assert_allclose(ours(network, name)[name].sum((1, 2)), change, rtol=1e-4)
    sums = captums("DeepLift", network, baselines=-1.0).sum((1, 2, 3)).numpy()
    assert np.abs(sums / change - 1).max() > 5e-3


def test_captum_returns_the_gradient_of_relu6_and_we_do_not() -> None:
    network = Modules(nn.ReLU6)
    plain = captums("Saliency", network, abs=False)
    assert torch.equal(captums("GuidedBackprop", network), plain)
    maps = ours(network, "guided-backprop", "gradient")
    assert relative_error(maps["gradient"], plain.abs().amax(1).numpy()) < 1e-4
    assert relative_error(maps["guided-backprop:rule=guided"], maps["gradient"]) > 0.1


class OneRule(Relevance):
    """One rule for all linear layers."""

    def __init__(self, own: Rule) -> None:
        super().__init__()
        object.__setattr__(self, "own", own)

    def rule(self, node: fx.Node, sources: tuple[fx.Node, ...]) -> Rule | None:
        return self.own if node.target in LAYERS else super().rule(node, sources)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("own", "peer"), [(epsilon_of_layer, EpsilonRule), (plus, Alpha1_Beta0_Rule)])
def test_rules_of_relevance_are_captums(own: Rule, peer: type) -> None:
    network = Modules(norm=False)
    # captum has no rule for what is no layer, and its positive rule presumes positive inputs
    network.features[1] = nn.ReLU()
    frames = probe_frames(SIZE, BATCH)
    if own is plus:
        frames = frames.abs()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = peer()
            if own is plus:
                # captum takes negative biases for positive contributions
                module.bias.data.zero_()
    graph = split_network(network, (), SIZE, BATCH).whole
    assert isinstance(graph, fx.GraphModule)
    result = pulled_back(Record(graph, frames.detach(), OneRule(own).rule), torch.full((BATCH, 1), TARGET))
    want = captum.attr.LRP(network).attribute(frames.requires_grad_(), target=TARGET)
    got = result.signals[0] * result.scores[:, :, None, None]
    assert relative_error(got.numpy(), want.detach().numpy()) < 1e-3
