"""Split networks: equal to the whole, folded BatchNorm and constants, linear heads accepted or refused by numbers."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, fx, nn

from saliency_pipeline.models.probe import evaluating, probe_frames
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.split import WithActivations, close, split_network
from tests import rare
from tests.saliency.networks import BATCH, Tiny, library_source, library_split

LINEAR = [
    pytest.param("resnet18", 64, marks=pytest.mark.slow),
    ("tf_efficientnet_lite0", 64),
    pytest.param("mobilenetv2_050", 64, marks=pytest.mark.slow),
    pytest.param("densenet121", 64, marks=pytest.mark.slow),
    pytest.param("regnetx_002", 64, marks=pytest.mark.slow),
    pytest.param("inception_v3", 128, marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", 224, marks=pytest.mark.slow),
]
OTHER = [
    ("convnext_atto", 64),
    pytest.param("mobilenetv3_small_050", 64, marks=pytest.mark.slow),
    pytest.param("vgg11", 64, marks=pytest.mark.slow),
    pytest.param("edgenext_xx_small", 64, marks=pytest.mark.slow),
    ("test_vit", 160),
]


@pytest.mark.parametrize(("name", "size"), LINEAR)
def test_linear_heads_are_proved(name: str, size: int) -> None:
    split = library_split(name, size)
    linear = split.linear
    assert linear is not None
    assert linear.weight.shape == (1000, split.layers[0].channels)
    output, logits = WithActivations(library_source(name, size).module, [split.layers[0].name])(
        probe_frames(size, BATCH)
    )
    pooled = split.layers[0].to_grid(output).mean((2, 3))
    assert close(pooled @ linear.weight.T + linear.bias, logits, 1e-5)


@pytest.mark.parametrize(("name", "size"), OTHER)
def test_heads_of_the_right_shapes_are_refused_by_their_numbers(name: str, size: int) -> None:
    split = library_split(name, size)
    assert split.trunk is not None
    assert split.head is not None
    assert split.linear is None


@pytest.mark.parametrize(("name", "size"), [*LINEAR, *OTHER])
def test_trunk_and_head_make_the_whole(name: str, size: int) -> None:
    split, network = library_split(name, size), library_source(name, size).module
    frames = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(5))
    assert split.trunk is not None
    assert split.head is not None
    with torch.no_grad():
        output, logits = WithActivations(network, [split.layers[0].name])(frames)
        assert close(split.trunk(frames), output, 1e-4)
        assert close(split.head(output)[0], logits, 1e-4)
        for got, wanted in zip(split.whole(frames), (output, logits), strict=True):
            assert close(got, wanted, 1e-4)


def operators(part: nn.Module) -> set[str]:
    assert isinstance(part, fx.GraphModule)
    return {str(node.target) for node in part.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", *rare("resnet18", "mobilenetv2_050")])
def test_no_batchnorm_is_left(name: str) -> None:
    split = library_split(name)
    for part in (split.whole, split.trunk):
        assert not any("batch_norm" in operator for operator in operators(part))


def test_what_no_frame_changes_is_computed_once() -> None:
    split = library_split("test_vit", 160)
    assert not any("upsample" in operator for operator in operators(split.whole))
    assert all("." not in str(node.target) for node in split.whole.graph.nodes if node.op == "get_attr")


def test_a_classifier_of_zeros_is_no_proof() -> None:
    network = Tiny()
    network.fc.weight.zero_()
    network.fc.bias.zero_()
    split = split_network(network, [choose_layer(network, 8)], 8, BATCH)
    assert split.trunk is not None
    assert split.linear is None


class Bent(Tiny):
    """As Tiny, but its pooled features pass a function that leaves every shape as it is."""

    def __init__(self, bend: str) -> None:
        super().__init__()
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.norm(self.conv(x)))
        if self.bend == "max pooling":
            return self.fc(features.amax((2, 3)))
        pooled = features.mean((2, 3))
        if self.bend == "a norm":
            pooled = nn.functional.layer_norm(pooled, pooled.shape[1:])
        if self.bend == "a square":
            pooled = pooled * pooled
        logits = self.fc(pooled)
        return logits * 2 if self.bend == "a temperature" else logits


@pytest.mark.parametrize("bend", ["max pooling", "a norm", "a square", "a temperature"])
def test_anything_between_pooling_and_logits_is_noticed(bend: str) -> None:
    network = Bent(bend)
    split = split_network(network, [choose_layer(network, 8)], 8, BATCH)
    assert split.head is not None
    assert split.linear is None
    straight = Bent("nothing")
    assert split_network(straight, [choose_layer(straight, 8)], 8, BATCH).linear is not None


class Shared(nn.Module):
    """One convolution used twice, each time with another BatchNorm, and one BatchNorm that follows no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3, affine=affine) for affine in (True, False, True))
        self.last = nn.Identity()
        self.fc = nn.Linear(3, 5)
        generator = torch.Generator().manual_seed(0)
        for norm in self.norms:
            norm.running_mean = torch.randn(3, generator=generator)
            norm.running_var = torch.rand(3, generator=generator) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        once = self.conv(x)
        first, second = self.norms[0](once).relu(), self.norms[1](self.conv(once))
        return self.fc(self.last(self.norms[2](first + second)).mean((2, 3)))


def test_folding_batchnorm_leaves_the_numbers() -> None:
    network = Shared().eval().requires_grad_(False)
    split = split_network(network, [choose_layer(network, 8)], 8, BATCH)
    assert split.trunk is not None
    frames = torch.randn(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    assert close(split.whole(frames)[1], network(frames), 1e-5)


class Changing(Tiny):
    """Runs Python that no export can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (2.0 if float(x.detach().sum()) > 1e9 else 1.0))


def test_a_network_that_cannot_be_exported_is_explained_uncut_and_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    network = Changing()
    split = split_network(network, [choose_layer(network, 8)], 8, BATCH)
    assert split.trunk is None
    assert isinstance(split.whole, WithActivations)
    assert capfd.readouterr() == ("", "")


def test_observing_survives_layers_that_work_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.eval().requires_grad_(False)
    frames = probe_frames(8, 1)
    output, logits = WithActivations(network, "0")(frames.requires_grad_())
    assert (output < 0).any()
    (gradient,) = torch.autograd.grad(logits[0, 0], output)
    assert torch.equal(gradient[0, 0] != 0, output[0, 0] > 0)
    assert torch.equal(logits, network(frames))


def test_the_network_is_left_as_found() -> None:
    network = Tiny().train().requires_grad_(True)
    network.conv.eval()
    network.fc.bias.requires_grad_(False)
    before = copy.deepcopy(network)
    layer = choose_layer(network, 8)
    split = split_network(network, [layer], 8, BATCH)
    assert split.linear is not None
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks for m in network.modules())
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_evaluating_gives_modes_back_after_an_error() -> None:
    network = Tiny().train().requires_grad_(True)

    def fail() -> None:
        with evaluating(network):
            assert not network.norm.training
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert network.norm.training
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [([1.0, 2.0], [1.0, 2.00001], True), ([1.0, 2.0], [1.0, 2.1], False), ([float("nan")], [float("nan")], False)],
)
def test_close(a: list[float], b: list[float], same: bool) -> None:
    assert close(torch.tensor(a), torch.tensor(b), 1e-4) is same


def test_threads_observe_their_own_images_alone() -> None:
    class Meeting(nn.Module):
        """Lets two threads' images reach the layer while both have their hooks on it."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.barrier = nn.Identity(), threading.Barrier(2, timeout=20)

        def forward(self, frames: Tensor) -> Tensor:
            self.barrier.wait()
            frames = self.layer(frames)
            self.barrier.wait()
            return frames.mean((2, 3))

    observed = WithActivations(Meeting(), ["layer"])
    frames = [torch.full((1, 3, 2, 2), float(number)) for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(observed, frames))
    assert all(torch.equal(output, frame) for (output, _), frame in zip(results, frames, strict=True))
