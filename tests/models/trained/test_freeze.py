"""Freezing: frozen and trained layers, and unknown names."""

import dataclasses

import pytest
import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.freeze import freeze, training_mode
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network

SPEC = NetworkSpec("resnet18", ("a", "b"), 64, "modulated")


def learning(until: str, spec: NetworkSpec = SPEC) -> set[str]:
    network = build_network(spec)
    freeze(network, spec, until)
    return {name for name, p in network.named_parameters() if p.requires_grad}


def test_freezing_ends_with_the_named_stage() -> None:
    names = learning("layer2")
    assert not [n for n in names if n.startswith(("backbone.conv1", "backbone.layer1", "backbone.layer2"))]
    assert {n.split(".")[1] for n in names if n.startswith("backbone.")} == {"layer3", "layer4", "fc"}
    assert [n for n in names if n.startswith("branch.")]


def test_the_stem_alone_and_all_but_the_head() -> None:
    every = {name for name, _ in build_network(SPEC).named_parameters()}
    assert every - learning("stem") == {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}
    assert {n for n in learning("features") if n.startswith("backbone.")} == {"backbone.fc.weight", "backbone.fc.bias"}


def test_parameters_of_a_block_are_frozen_with_it() -> None:
    spec = dataclasses.replace(SPEC, backbone="convnext_atto")
    names = learning("features", spec)
    assert {n for n in names if n.startswith("backbone.")} == {"backbone.head.fc.weight", "backbone.head.fc.bias"}
    names = learning("stages.1", spec)
    assert not [n for n in names if n.startswith(("backbone.stages.0.", "backbone.stages.1."))]
    assert "backbone.stages.2.blocks.0.gamma" in names


def test_frozen_norms_keep_their_statistics() -> None:
    network = build_network(SPEC)
    training_mode(network, freeze(network, SPEC, "features"))
    before = {n: v.clone() for n, v in network.backbone.state_dict().items()}
    network(torch.randn(4, 3, 64, 64), torch.rand(4, 1, 64, 64))
    assert all(torch.equal(v, before[n]) for n, v in network.backbone.state_dict().items())


def test_the_modulated_forward_pass_is_not_disturbed() -> None:
    torch.manual_seed(0)
    network = build_network(SPEC).eval()
    initialize(network, SPEC, "scratch")
    pairs = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    before = network(*pairs)
    freeze(network, SPEC, "layer1")
    assert torch.equal(network(*pairs), before)


def test_names_that_are_no_stage() -> None:
    with pytest.raises(SalpipeError, match=r"--freeze layer9: no layer of resnet18; .* features, .*layer4"):
        learning("layer9")
    with pytest.raises(SalpipeError, match="fourth channel"):
        learning("stem", dataclasses.replace(SPEC, fusion="input"))
