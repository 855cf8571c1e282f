"""Attention pooling: weights by hand, identities that hold exactly, and the layer that networks pool."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.build import untrained_with
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.pooled import Pooled, find_pooled_layer, pooling_weights
from saliency_pipeline.models.trained.two_branch import Baseline, NetworkSpec, build_network

CLASSES = ("cat", "dog", "owl")
SIZE = 64
LINEAR = {
    "efficientnet_lite0": ("bn2", "classifier"),
    "resnet18": ("layer4", "fc"),
    "regnetx_002": ("final_conv", "head.fc"),
    "densenet121": ("features", "classifier"),
    "torchvision/mobilenet_v2": ("features", "classifier.1"),
}
OTHERS = {
    "convnext_atto": "norm_pre",  # a norm stands between pooling and the linear layer
    "mobilenetv3_small_050": "blocks",  # a convolution does
    "torchvision/densenet121": "features",  # a ReLU stands before pooling
}


def spec(backbone: str = "test_resnet", size: int = SIZE) -> NetworkSpec:
    return NetworkSpec(backbone, CLASSES, size, arch="pooled")


def drawn(backbone: str = "test_resnet") -> nn.Module:
    network = build_network(spec(backbone))
    initialize(network, spec(backbone), "scratch", seed=3)
    return network


def pairs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator), torch.rand(count, 1, SIZE, SIZE, generator=generator)


def plain(backbone: str) -> nn.Module:
    return untrained_with(*find_source(backbone), len(CLASSES)).float()


def test_weights_by_hand() -> None:
    maps = torch.tensor([[0.0, 0.2, 1.0, 1.0], [0.2, 0.0, 1.0, 1.0], [-5.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]])
    weights = pooling_weights(maps[None, None], (2, 2))  # cells 0.1, 1, 0, 0.5 with the mean 0.4
    assert weights.flatten().tolist() == pytest.approx([0.25, 2.5, 0.0, 1.25])


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 1e20])
def test_a_constant_map_has_weights_of_exactly_one(value: float) -> None:
    assert torch.equal(pooling_weights(torch.full((2, 1, 50, 50), value), (7, 7)), torch.ones(2, 1, 7, 7))


def test_pooling_is_the_weighted_mean() -> None:
    images, maps = pairs()
    network = drawn().eval()
    features: list[torch.Tensor] = []
    backbone = copy.deepcopy(network.backbone)
    backbone.layer4.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    backbone(images)
    weights = functional.adaptive_avg_pool2d(maps, 2)
    means = (features[0] * weights).sum((2, 3)) / weights.sum((2, 3))
    assert torch.allclose(network(images, maps), network.backbone.fc(means), atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_resnet", *LINEAR, *OTHERS])
@pytest.mark.parametrize("training", [False, True])
def test_with_uniform_maps_it_is_the_baseline_to_the_bit(backbone: str, training: bool) -> None:
    images, maps = pairs()
    network = build_network(spec(backbone)).train(training)
    twin = Baseline(copy.deepcopy(network.backbone)).train(training)
    outputs = []
    for run in (lambda: network(images, torch.full_like(maps, 0.7)), lambda: twin(images)):
        torch.manual_seed(1)  # dropout
        outputs.append(run())
    assert torch.equal(*outputs)
    assert not torch.allclose(network(images, maps), outputs[0], rtol=1e-3, atol=0)


def test_tensors_are_those_of_the_baseline_with_the_same_start() -> None:
    baseline = NetworkSpec("test_resnet", CLASSES, SIZE)
    other = build_network(baseline)
    initialize(other, baseline, "scratch", seed=3)
    ours, theirs = drawn().state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_backbone_by_itself_pools_uniformly_and_maps_are_needed() -> None:
    images, maps = pairs()
    network = drawn().eval()
    assert spec().needs_maps
    assert not torch.equal(network.backbone(images), network(images, maps))
    assert torch.equal(network.backbone(images), network(images, torch.zeros_like(maps)))
    with pytest.raises(ValueError, match="needs maps"):
        network(images)


def test_cells_without_weight_have_no_influence() -> None:
    images, maps = pairs()
    network = drawn().eval()
    maps = torch.zeros_like(maps)
    maps[:, :, : SIZE // 2, : SIZE // 2] = 1
    layer, change = network.backbone.layer4, torch.ones(1, 1, 2, 2)
    change[..., 0, 0] = 0
    before = network(images, maps)
    # after the hook of the network: it changes what the weights left
    layer.register_forward_hook(lambda _module, _inputs, output: output * (1 - change))
    assert torch.equal(network(images, maps), before)


@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_lite0"])
def test_bf16_keeps_its_type(backbone: str) -> None:
    images, maps = pairs()
    with torch.autocast("cpu", torch.bfloat16):
        assert drawn(backbone)(images, maps).dtype == torch.bfloat16


@pytest.mark.parametrize("backbone", [*LINEAR, *OTHERS])
def test_the_layer_before_pooling_is_recognized(backbone: str) -> None:
    module = plain(backbone)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    layer = find_pooled_layer(module, SIZE)
    assert layer is not None
    assert layer.grid == (2, 2)
    assert (layer.name, layer.linear) == (LINEAR[backbone] if backbone in LINEAR else (OTHERS[backbone], None))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(("backbone", "size"), [("test_vit", 160), ("test_resnet", 32), ("torchvision/vgg11", 64)])
def test_a_network_without_pooling_of_a_grid_is_refused(backbone: str, size: int) -> None:
    with pytest.raises(SalpipeError, match=r"no grid of features before global pooling") as error:
        build_network(spec(backbone, size))
    assert backbone in str(error.value)
    assert "\n" not in str(error.value)


def test_a_copy_is_a_network_of_its_own() -> None:
    images, maps = pairs()
    network = drawn().eval()
    twin = copy.deepcopy(network)
    assert isinstance(twin, Pooled)
    before = network(images, maps)
    with torch.no_grad():
        twin.backbone.fc.weight.zero_()
    assert torch.equal(network(images, maps), before)
    assert not torch.equal(twin(images, maps), before)
