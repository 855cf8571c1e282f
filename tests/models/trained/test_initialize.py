"""Initialization: loaded, random and unused tensors, and errors."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.trained import Trained, load_trained, write_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, TwoBranch, build_network

SPEC = NetworkSpec("efficientnet_lite0", ("a", "b", "c"), 64, "modulated")
HEAD = {"backbone.classifier.weight", "backbone.classifier.bias"}


def begun(spec: NetworkSpec, how: str, **options: object) -> nn.Module:
    network = build_network(spec)
    initialize(network, spec, how, **options)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A two-branch network of five classes whose every tensor has been moved."""
    spec = dataclasses.replace(SPEC, classes=tuple("vwxyz"))
    network = begun(spec, "half", seed=9)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.01 * torch.rand(value.shape, generator=generator))
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    write_trained(path, network, spec, {})
    return load_trained(path.parent)


def test_half_loads_the_backbone_and_draws_the_rest() -> None:
    network = build_network(SPEC)
    report = initialize(network, SPEC, "half", seed=1)
    source = load_source().module.state_dict()
    state = network.state_dict()
    for name in report.loaded:
        assert torch.equal(state[name], source[name.removeprefix("backbone.")]), name
    assert set(report.left_out) == HEAD
    assert set(report.xavier) == {"backbone.classifier.weight", "branch.stem.0.weight"}
    # every tensor is accounted for, but for the branch's norm, which is as it was built, and the head's bias
    rest = set(state) - set(report.loaded) - set(report.xavier)
    assert rest == {name for name in state if name.startswith("branch.stem.1.")} | {"backbone.classifier.bias"}
    assert not state["backbone.classifier.bias"].any()
    text = str(report)
    assert "of efficientnet_lite0 (embedded weights) loaded" in text
    assert "2 drawn (backbone.classifier.weight, branch.stem.0.weight)" in text


def test_scratch_is_xavier_uniform_everywhere() -> None:
    spec = dataclasses.replace(SPEC, backbone="resnet18", fusion="concat", fuse_at="layer2")
    network = build_network(spec)
    report = initialize(network, spec, "scratch", seed=1)
    layers = {f"{n}.weight": m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(report.xavier) == set(layers)
    assert report.loaded == report.left_out == ()
    for name, layer in layers.items():
        receptive = layer.weight[0, 0].numel()
        bound = (6 / ((layer.weight.shape[0] + layer.weight.shape[1]) * receptive)) ** 0.5
        assert layer.weight.abs().max() <= bound, name
        assert layer.weight.abs().max() > 0.9 * bound, name
        assert layer.bias is None or not layer.bias.any(), name


def test_random_weights_depend_on_seed_and_name_alone() -> None:
    baseline = dataclasses.replace(SPEC, arch="baseline")
    ours, theirs, other = begun(SPEC, "half", seed=4), begun(baseline, "half", seed=4), begun(SPEC, "half", seed=5)
    shared = theirs.state_dict()
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in shared.items())
    assert not torch.equal(ours.state_dict()["branch.stem.0.weight"], other.state_dict()["branch.stem.0.weight"])
    torch.manual_seed(123)
    again = begun(SPEC, "half", seed=4)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in again.state_dict().items())


def test_the_callers_random_state_is_left_as_found() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    begun(SPEC, "half")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fourth_channel_is_random_and_the_other_three_are_loaded() -> None:
    spec = dataclasses.replace(SPEC, fusion="input")
    network = build_network(spec)
    report = initialize(network, spec, "half", seed=2)
    weight = network.state_dict()["backbone.conv_stem.weight"]
    assert torch.equal(weight[:, :3], load_source().module.state_dict()["conv_stem.weight"])
    assert weight[:, 3].std() > 0
    assert "backbone.conv_stem.weight" in report.loaded
    assert "backbone.conv_stem.weight" in report.xavier


def test_full_reproduces_the_features_of_its_checkpoint(checkpoint: Trained) -> None:
    network = build_network(SPEC)
    report = initialize(network, SPEC, "full", checkpoint=checkpoint)
    assert isinstance(network, TwoBranch)
    assert isinstance(checkpoint.network, TwoBranch)
    assert set(report.left_out) == HEAD
    assert set(report.xavier) == {"backbone.classifier.weight"}
    generator = torch.Generator().manual_seed(1)
    images, maps = torch.randn(2, 3, 64, 64, generator=generator), torch.rand(2, 1, 64, 64, generator=generator)
    features: list[torch.Tensor] = []
    for each in (network.eval(), checkpoint.network):
        handle = each.backbone.classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        with torch.no_grad():
            each(images, maps)
        handle.remove()
    assert torch.equal(*features)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"backbone": "resnet18"}, "backbone efficientnet_lite0 -> resnet18"),
        ({"arch": "baseline"}, "arch modulated -> baseline"),
        ({"fusion": "concat"}, "fusion multiply-skip -> concat"),
        ({"fuse_at": "blocks.1"}, "fuse_at stem -> blocks.1"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(checkpoint: Trained, change: dict[str, str], named: str) -> None:
    with pytest.raises(SalpipeError, match=named):
        begun(dataclasses.replace(SPEC, **change), "full", checkpoint=checkpoint)


def test_nothing_is_loaded_in_part(tmp_path: Path) -> None:
    state = load_source().module.state_dict()
    del state["blocks.3.1.bn2.weight"]
    save_file(state, tmp_path / "partial.safetensors")
    with pytest.raises(SalpipeError, match=r"1 missing: blocks\.3\.1\.bn2\.weight"):
        begun(SPEC, "half", weights=str(tmp_path / "partial.safetensors"))


def test_a_file_of_weights_serves_half(tmp_path: Path) -> None:
    source = load_source("resnet18", "none").module
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    spec = dataclasses.replace(SPEC, backbone="resnet18")
    network = build_network(spec)
    report = initialize(network, spec, "half", weights=str(tmp_path / "own.safetensors"))
    assert torch.equal(network.state_dict()["backbone.conv1.weight"], source.state_dict()["conv1.weight"])
    assert "own.safetensors" in str(report)


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("full", {}, "--init full needs --from"),
        ("most", {}, "--init most: unknown; choose from scratch, half, full"),
        ("half", {"weights": "none"}, "--init half needs pretrained weights"),
    ],
)
def test_what_cannot_be_is_refused(how: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        begun(SPEC, how, **options)
