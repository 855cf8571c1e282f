"""The cascade of networks with random parameters."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.assessment.randomized import cascade
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from tests.saliency.networks import FP32, PREDICTED, load_sized, own_source

SIZE = 16


class Odd(nn.Module):
    """Layers that are registered in another order than they run in, and parameters of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.position = nn.Parameter(torch.zeros(1, 64, 8))
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm, self.unused = nn.BatchNorm2d(8), nn.Linear(2, 2)
        self.tied = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.tied.weight = self.second.weight

    def forward(self, pixels: Tensor) -> Tensor:
        grid = self.tied(self.norm(self.second(self.first(pixels))))
        tokens = grid.flatten(2).mT + self.position
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


ORDER = [
    ("first",),
    ("second",),
    ("norm",),
    ("position",),
    ("attention",),
    ("attention.out_proj",),
    ("head",),
    ("unused",),
]


@pytest.fixture(scope="module")
def odd() -> nn.Module:
    return Odd().eval().requires_grad_(False)


def changed(network: nn.Module, before: nn.Module) -> set[str]:
    """Layers that have no parameter of `before`, after a check that the others have all of them."""
    layers = {}
    for (name, own), old in zip(network.named_parameters(), before.parameters(), strict=True):
        owner = name.rpartition(".")[0] or name
        layers.setdefault(owner, set()).add(bool((own == old).float().mean() > 1e-3))
        assert torch.isfinite(own).all()
    assert all(len(kept) == 1 for kept in layers.values())
    return {name for name, kept in layers.items() if kept == {False}}


def test_layers_become_random_from_the_last_to_run_on(odd: nn.Module) -> None:
    before = copy.deepcopy(odd.state_dict())
    networks = list(cascade(odd, SIZE, points=8))
    for point, network in enumerate(networks, 1):
        assert changed(network, odd) == {name for names in ORDER[-point:] for name in names}
        assert not any(part.training for part in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert networks[-1].tied.weight is networks[-1].second.weight
    assert all(torch.equal(value, before[name]) for name, value in odd.state_dict().items())
    assert networks[-1].norm.momentum == 0.1


def test_a_cascade_is_reproducible_and_depends_on_the_seed(odd: nn.Module) -> None:
    state = torch.random.get_rng_state()
    once, again, other = (list(cascade(odd, SIZE, seed=seed))[-1].state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, again[name]) for name, value in once.items())
    assert not torch.equal(once["head.weight"], other["head.weight"])


def test_a_layer_has_the_same_random_parameters_at_all_points(odd: nn.Module) -> None:
    networks = list(cascade(odd, SIZE))
    assert all(torch.equal(network.head.weight, networks[-1].head.weight) for network in networks)


def test_layers_of_the_same_shape_differ_and_keep_their_scale() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(300, 300), nn.Linear(300, 300))
    layers[2].weight.data.mul_(10)
    (network,) = cascade(layers, 10, points=1)
    weights = network[1].weight, network[2].weight
    assert abs(np.corrcoef(*(weight.detach().flatten() for weight in weights))[0, 1]) < 0.02
    for weight, layer in zip(weights, (layers[1], layers[2]), strict=True):
        np.testing.assert_allclose(weight.std().item(), layer.weight.std().item(), rtol=0.02)


def test_running_statistics_fit_the_random_layers(odd: nn.Module) -> None:
    *_, network = cascade(odd, SIZE)
    outputs: list[Tensor] = []
    network.norm.register_forward_hook(lambda *args: outputs.append(args[2]))
    network(torch.randn(64, 3, SIZE, SIZE))
    spread = (outputs[0] - network.norm.bias[:, None, None]) / network.norm.weight[:, None, None]
    np.testing.assert_allclose(spread.std((0, 2, 3)), 1, atol=0.15)


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("efficientnet_lite0", "default", 64),
        ("resnet18", "none", 64),
        pytest.param("vit_tiny_patch16_224", "none", 224, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", "none", 224, marks=pytest.mark.slow),
    ],
)
def test_logits_of_library_networks_are_finite_and_depend_on_the_image(name: str, weights: str, size: int) -> None:
    module = load_sized(name, size, weights).module
    frames = torch.randn(4, 3, size, size)
    owners = {key.rpartition(".")[0] or key for key, _ in module.named_parameters()}
    for point, network in enumerate(cascade(module, size), 1):
        assert len(changed(network, module)) == pytest.approx(len(owners) * point / 5, abs=2.5)
        logits = network(frames)
        assert torch.isfinite(logits).all()
        assert (logits - logits.mean(0)).std() > 0.02 * logits.std()


@pytest.mark.parametrize("name", ["efficientnet_lite0", pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)])
def test_maps_of_random_networks_are_finite(name: str) -> None:
    size = 64 if name == "efficientnet_lite0" else 224
    module = load_sized(name, size, "default" if name == "efficientnet_lite0" else "none").module
    *_, network = cascade(module, size)
    layers = [choose_layer(network, size)]
    methods = find_methods(("hirescam", "input-x-gradient"))
    explainer = Explainer(own_source(network, size, 1000), layers, methods, PREDICTED, 2, FP32)
    for maps in explainer.explain(
        np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    ).maps.values():
        assert np.isfinite(maps).all()
        assert (np.ptp(maps, axis=(2, 3)) > 0).all()
