"""The two-branch network: identities that hold exactly, gradients everywhere, every fusion on every family."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.choices import FUSIONS
from saliency_pipeline.models.trained.fusion import Add, Concat, Multiply, MultiplySkip, Neutral, make_fusion
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.two_branch import Baseline, NetworkSpec, TwoBranch, build_network

CLASSES = ("cat", "dog", "owl", "eel")
SIZE = 64
FAMILIES = (
    "efficientnet_lite0",
    "resnet18",
    "mobilenetv3_small_050",
    "convnext_atto",
    "regnetx_002",
    "densenet121",
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
)


def spec(backbone: str = "resnet18", **options: object) -> NetworkSpec:
    return NetworkSpec(backbone, CLASSES, SIZE, **{"arch": "modulated", **options})


def drawn(wanted: NetworkSpec) -> nn.Module:
    network = build_network(wanted)
    initialize(network, wanted, "scratch", seed=3)
    return network


def pairs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator), torch.rand(count, 1, SIZE, SIZE, generator=generator)


def silenced(network: nn.Module) -> TwoBranch:
    """The network with a saliency branch whose sigmoid gives 0."""
    assert isinstance(network, TwoBranch)
    network.branch.forward = lambda maps, grid: torch.zeros(())  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_without_saliency_the_skip_connection_is_the_baseline_to_the_bit(backbone: str, training: bool) -> None:
    images, maps = pairs()
    network = silenced(build_network(spec(backbone))).train(training)
    baseline = Baseline(copy.deepcopy(network.backbone)).train(training)
    torch.manual_seed(1)
    ours = network(images, maps)
    torch.manual_seed(1)
    assert torch.equal(ours, baseline(images))


@pytest.mark.parametrize("backbone", FAMILIES)
def test_gradients_reach_both_branches(backbone: str) -> None:
    images, maps = pairs(4)
    network = drawn(spec(backbone, learn_alpha=True))
    functional.cross_entropy(network(images, maps), torch.arange(4)).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without
    flat = [name for name, p in network.named_parameters() if name.startswith("branch") and not p.grad.abs().sum() > 0]
    assert flat == [] or flat == ["branch.stem.0.bias"]  # a bias before a norm has no effect


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_neutral_fusion_starts_as_the_baseline_to_the_bit(backbone: str, training: bool) -> None:
    images, maps = pairs()
    wanted = spec(backbone, fusion="neutral"), spec(backbone, arch="baseline")
    logits = []
    for each in wanted:
        network = drawn(each).train(training)
        torch.manual_seed(1)  # dropout
        logits.append(network(images, maps))
    assert torch.equal(*logits)


def test_a_neutral_fusion_learns_its_zero_convolution_first_and_then_its_branch() -> None:
    images, maps = pairs(4)
    network = drawn(spec(fusion="neutral"))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(network(images, maps), torch.arange(4)).backward()
        assert network.fusion.zero.weight.grad.abs().sum() > 0
        assert (network.branch.stem[0].weight.grad.abs().sum() > 0) == (step > 0)
        optimizer.step()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "torchvision/densenet121"])
def test_every_fusion_depends_on_the_map(fusion: str, backbone: str) -> None:
    images, maps = pairs()
    network = drawn(spec(backbone, fusion=fusion))
    if fusion == "neutral":
        nn.init.normal_(network.fusion.zero.weight)  # as after some training
    with torch.no_grad():
        logits = network(images, maps)
        assert logits.shape == (2, 4)
        assert not torch.allclose(logits, network(images, maps.flip(0)), rtol=1e-3)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_branches_join_after_a_stage_too(backbone: str) -> None:
    images, maps = pairs()
    where = {"resnet18": "layer3", "efficientnet_lite0": "blocks.2"}[backbone]
    network = build_network(spec(backbone, fuse_at=where))
    assert network(images, maps).shape == (2, 4)
    assert network.branch.project.out_channels == {"layer3": 256, "blocks.2": 40}[where]


def test_learned_saliency_needs_no_map() -> None:
    images, maps = pairs()
    network = build_network(spec(arch="learned")).eval()
    assert not spec(arch="learned").needs_maps
    assert torch.equal(network(images), network(images, maps))
    assert network.branch.stem[0].in_channels == 3


def test_a_network_that_needs_maps_says_so() -> None:
    for fusion in ("multiply-skip", "input"):
        with pytest.raises(ValueError, match="needs maps"):
            build_network(spec(fusion=fusion))(pairs()[0])


def test_the_backbone_by_itself_is_not_modulated() -> None:
    images, maps = pairs()
    network = drawn(spec())
    assert not torch.equal(network.backbone(images), network(images, maps))
    assert torch.equal(network.backbone(images), Baseline(network.backbone)(images))


def test_a_copy_is_a_network_of_its_own() -> None:
    images, maps = pairs()
    network = drawn(spec())
    twin = copy.deepcopy(network)
    before = network(images, maps)
    with torch.no_grad():
        for parameter in twin.branch.parameters():
            parameter.zero_()
    assert torch.equal(network(images, maps), before)
    assert not torch.equal(twin(images, maps), before)


def test_the_fusions_are_their_formulas() -> None:
    rgb, sal = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(MultiplySkip(0.5)(rgb, sal), rgb * sal + 0.5 * rgb)
    neutral = Neutral(3)
    assert torch.equal(neutral(rgb, sal), rgb)
    nn.init.constant_(neutral.zero.weight, 0.7)
    torch.testing.assert_close(neutral(rgb, sal), rgb * (1 + torch.tanh(0.7 * sal.sum(1, keepdim=True))))
    assert torch.equal(MultiplySkip()(rgb, torch.zeros_like(sal)), rgb)
    assert torch.equal(Multiply()(rgb, sal), rgb * sal)
    assert torch.equal(Add()(rgb, sal), rgb + sal)
    concat = Concat(3)
    by_hand = torch.einsum("oc,nchw->nohw", concat.mix.weight[:, :, 0, 0], torch.cat([rgb, sal], 1))
    torch.testing.assert_close(concat(rgb, sal), by_hand + concat.mix.bias[:, None, None])
    learned = MultiplySkip(0.25, learned=True)
    assert learned.alpha.item() == 0.25
    assert list(MultiplySkip(0.25).parameters()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "both"}, "--arch both: unknown; choose from baseline, modulated, learned"),
        ({"fusion": "sum"}, "--fusion sum: unknown; choose from multiply-skip"),
        ({"fusion": "input", "arch": "learned"}, "--fusion input adds the map"),
        ({"fusion": "input", "fuse_at": "layer1"}, "--fusion input adds the map"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        spec(**options)


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(SalpipeError, match="--fusion input: unknown"):
        make_fusion("input", 3, 1.0, False)


def test_a_backbone_that_does_not_take_the_frames_says_so() -> None:
    with pytest.raises(SalpipeError, match="vit_tiny_patch16_224: does not take frames of 64x64") as error:
        build_network(spec("vit_tiny_patch16_224", arch="baseline"))
    assert "\n" not in str(error.value)


def test_backbones_without_a_stem_train_as_baselines_alone() -> None:
    with pytest.raises(SalpipeError, match="--arch baseline"):
        build_network(spec("repvgg_a0"))
    assert build_network(dataclasses.replace(spec("repvgg_a0"), arch="baseline"))(pairs()[0]).shape == (2, 4)
