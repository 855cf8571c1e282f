"""Stems and stages: recognized in every family, copied, and refused if there is none."""

from functools import cache

import pytest
import torch
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import probe_frames, replaced_output
from saliency_pipeline.models.source.build import untrained_with
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.stem import copy_geometry, find_junction, find_stem, stages

STEMS = {
    "efficientnet_lite0": ("bn1", 32, 2),
    "resnet18": ("act1", 64, 2),
    "resnet50": ("act1", 64, 2),
    "resnet18d": ("act1", 64, 2),
    "mobilenetv2_050": ("bn1", 16, 2),
    "mobilenetv3_small_050": ("bn1", 16, 2),
    "convnext_atto": ("stem", 40, 4),
    "regnetx_002": ("stem", 32, 2),
    "densenet121": ("features.norm0", 64, 2),
    "inception_v3": ("Conv2d_1a_3x3", 32, 2),
    "resnetv2_50": ("stem.conv", 64, 2),
    "torchvision/resnet18": ("relu", 64, 2),
    "torchvision/efficientnet_b0": ("features.0", 32, 2),
    "torchvision/mobilenet_v3_small": ("features.0", 16, 2),
    "torchvision/convnext_tiny": ("features.0", 96, 4),
    "torchvision/densenet121": ("features.relu0", 64, 2),
    "torchvision/regnet_y_400mf": ("stem", 32, 2),
}
SIZE = 96


@cache
def network(name: str) -> nn.Module:
    return untrained_with(*find_source(name), 4).float()


@pytest.mark.parametrize("name", STEMS)
def test_the_stem_ends_before_the_first_pooling_or_block(name: str) -> None:
    end, channels, stride = STEMS[name]
    module = network(name).eval()
    stem = find_stem(name, module, SIZE)
    assert (stem.end, stem.channels) == (end, channels)

    seen: list[torch.Tensor] = []
    with torch.no_grad(), replaced_output(module.get_submodule(end), lambda output: seen.append(output.clone())):
        module(probe_frames(SIZE, 2))
    height = seen[0].shape[2]
    assert seen[0].shape[1] == channels
    assert abs(height - SIZE // stride) <= 1  # Inception does not pad

    values = probe_frames(SIZE, 2)
    for layer in stem.layers:
        values = module.get_submodule(layer)(values)
    if name != "inception_v3":  # which ends with an activation that is no module
        torch.testing.assert_close(values, seen[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", STEMS)
def test_the_copied_geometry_maps_one_channel_to_the_same_grid(name: str) -> None:
    module = network(name)
    stem = find_stem(name, module, SIZE)
    branch = copy_geometry(module, stem, 1)
    assert branch(torch.rand(2, 1, SIZE, SIZE)).shape[1] == stem.channels
    first = branch[0]
    assert isinstance(first, nn.Conv2d)
    assert first.weight.shape[1] == 1
    assert not [m for m in branch.modules() if isinstance(m, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish)][3:]
    original = {id(p) for p in module.parameters()}
    assert not original & {id(p) for p in branch.parameters()}


def test_the_copy_ends_without_its_activation() -> None:
    for name in ("efficientnet_lite0", "resnet18", "torchvision/efficientnet_b0"):
        branch = copy_geometry(network(name), find_stem(name, network(name), SIZE), 1)
        nn.init.normal_(branch[0].weight)
        branch.train()
        assert branch(torch.randn(4, 1, SIZE, SIZE)).min() < 0


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_parallel_first_convolutions_are_no_stem(name: str) -> None:
    with pytest.raises(SalpipeError, match=f"{name}: does not begin with a convolution"):
        find_stem(name, network(name), SIZE)


def test_a_norm_with_a_bypass_is_not_the_end_of_the_stem() -> None:
    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.head((x + self.body(self.norm(x))).mean((2, 3)))

    assert find_stem("bypassed", Bypassed(), 32).end == "first"


def test_stages_can_be_junctions() -> None:
    assert find_junction("resnet18", network("resnet18"), SIZE, "layer2").channels == 128
    assert find_junction("efficientnet_lite0", network("efficientnet_lite0"), SIZE, "blocks.1").channels == 24
    assert find_junction("resnet18", network("resnet18"), SIZE, "stem").name == "act1"
    assert stages(network("resnet18"))[4:6] == ["layer1", "layer2"]


@pytest.mark.parametrize(("where", "why"), [("layr2", "layer2"), ("layer2.0.conv1", "no grid"), ("fc", "no grid")])
def test_other_places_are_refused_with_names(where: str, why: str) -> None:
    with pytest.raises(SalpipeError, match=f"--fuse-at {where}: .*{why}"):
        find_junction("resnet18", network("resnet18"), SIZE, where)


def test_looking_leaves_no_trace() -> None:
    module = network("resnet18").train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    find_stem("resnet18", module, SIZE)
    find_junction("resnet18", module, SIZE, "layer1")
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
