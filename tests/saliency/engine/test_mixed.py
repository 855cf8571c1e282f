"""The bf16 backward pass: each rule equals autograd, whole networks correlate with float64, memory is freed."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.saliency.engine import mixed
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.mixed import MixedNetwork, MixedTrunk
from saliency_pipeline.saliency.engine.split import close, split_network
from saliency_pipeline.saliency.targets import Target
from tests.reference import pearson
from tests.saliency.networks import BATCH, Tiny, library_explainer, library_source, library_split, noise, photos

BACKWARD = Placement("torch", "bf16")


class Operators(nn.Module):
    """Every operator with a rule of its own, and several without."""

    def __init__(self, bend: str) -> None:
        super().__init__()
        self.bend = bend
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.last = nn.Identity()
        self.fc = nn.Linear(8, 5)
        self.register_buffer("offset", torch.linspace(-1, 1, 4).view(1, 1, 1, 4).repeat(BATCH, 8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.bent(self.first(x))).mean((2, 3)))

    def bent(self, x: Tensor) -> Tensor:
        match self.bend:
            case "convolutions":
                return self.second(x)
            case "relu":
                return self.second(x).relu() + x.relu()
            case "relu6":
                return nn.functional.relu6(x * 4)
            case "silu":
                return nn.functional.silu(self.second(x))
            case "add":
                return x + self.second(x)
            case "add itself":
                return x + x
            case "add a constant":
                return x + self.offset
            case "add a number":
                return x + 1.5
            case "gate":
                return x * self.second(x.mean((2, 3), keepdim=True).expand_as(x)).sigmoid()
            case "concatenate":
                return torch.cat([x[:, :4], self.second(x)[:, 4:]], 1)
            case "split":
                a, b = x.chunk(2, 1)
                return torch.cat([b, a * b], 1)
            case "unbind one":
                return x.unbind(3)[2][..., None] * x
            case "pool":
                return nn.functional.max_pool2d(x, 2) + nn.functional.avg_pool2d(x, 2)
            case _:
                kernel = x.mean((0, 2, 3)).view(8, 1, 1, 1)
                return nn.functional.conv2d(x, kernel, groups=8)


BENDS = [
    "convolutions", "relu", "relu6", "silu", "add", "add itself", "add a constant", "add a number", "gate",
    "concatenate", "split", "unbind one", "pool", "a kernel of the frame",
]  # fmt: skip


@pytest.mark.parametrize("bend", BENDS)
def test_in_fp32_every_rule_is_autograds(bend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "HALF", torch.float32)
    torch.manual_seed(0)
    network = Operators(bend).eval().requires_grad_(False)
    split = split_network(network, [choose_layer(network, 8, "last")], 8, BATCH)
    assert split.trunk is not None
    assert split.head is not None
    frames = probe_frames(8, BATCH)
    gradients = []
    for whole in (split.whole, MixedNetwork(split.trunk, split.head)):
        pixels = frames.clone().requires_grad_()
        _, logits = whole(pixels)
        gradients.append(torch.autograd.grad(logits[:, 2].sum(), pixels)[0])
    assert gradients[0].abs().max() > 0
    assert close(gradients[1], gradients[0], 1e-5)


@pytest.mark.parametrize("bend", BENDS)
def test_in_bf16_it_is_near(bend: str) -> None:
    torch.manual_seed(0)
    network = Operators(bend).eval().requires_grad_(False)
    split = split_network(network, [choose_layer(network, 8, "last")], 8, BATCH)
    assert split.trunk is not None
    pixels = probe_frames(8, BATCH).requires_grad_()
    output = MixedTrunk(split.trunk)(pixels)
    wanted_output = split.trunk(pixels)
    assert torch.equal(output, wanted_output)
    direction = torch.randn(output.shape)
    (got,), (wanted,) = (torch.autograd.grad(o, pixels, direction) for o in (output, wanted_output))
    assert got.dtype == torch.float32
    assert pearson(got.numpy(), wanted.numpy()) >= 0.999


def float64_gradient(module: nn.Module, frames: Tensor, targets: np.ndarray) -> np.ndarray:
    exact = copy.deepcopy(module).double()
    pixels = frames.double().requires_grad_()
    score = exact(pixels).gather(1, torch.as_tensor(targets).long()).sum()
    return torch.autograd.grad(score, pixels)[0].abs().amax(1).numpy()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("resnet18", 64, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 64, marks=pytest.mark.slow),
        pytest.param("densenet121", 64, marks=pytest.mark.slow),
        pytest.param("inception_v3", 128, marks=pytest.mark.slow),
        ("test_vit", 160),
    ],
)
def test_whole_networks_correlate_with_float64(name: str, size: int) -> None:
    explainer = library_explainer(name, ("gradient",), BACKWARD, size)
    frames = noise(BATCH, size)
    explanation = explainer.explain(frames)
    pixels = explainer.network.normalize(frames).contiguous()
    wanted = float64_gradient(explainer.source.module, pixels, explanation.targets)
    for got, exact in zip(explanation.maps["gradient"][:, 0], wanted, strict=True):
        assert pearson(got, exact) >= 0.999


@pytest.mark.slow
def test_on_photographs_with_trained_weights_too() -> None:
    explainer = library_explainer("efficientnet_lite0", ("gradient",), BACKWARD, 224, weights="default")
    frames = photos()[:BATCH]
    explanation = explainer.explain(frames)
    pixels = explainer.network.normalize(frames).contiguous()
    wanted = float64_gradient(explainer.source.module, pixels, explanation.targets)
    for got, exact in zip(explanation.maps["gradient"][:, 0], wanted, strict=True):
        assert pearson(got, exact) >= 0.999


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-2.0, 2.0), (-1.3, 0.7)])
def test_bounds_are_not_rounded(bounds: tuple[float, float]) -> None:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, groups=3, bias=False)
            nn.init.ones_(self.conv.weight)
            self.last, self.fc = nn.Identity(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.last(nn.functional.hardtanh(self.conv(x), *bounds)).mean((2, 3)))

    network = Clipped().eval().requires_grad_(False)
    split = split_network(network, [choose_layer(network, 8, "last")], 8, BATCH)
    assert split.trunk is not None
    bounds32 = torch.tensor(bounds)
    apart = torch.tensor([-1e-2, -1e-6, 0.0, 1e-6, 1e-2])
    frames = torch.from_numpy(np.resize((bounds32[:, None] + apart).numpy(), (BATCH, 3, 8, 8)))
    leaf = frames.clone().requires_grad_()
    MixedTrunk(split.trunk)(leaf).sum().backward()
    inside = (frames > bounds32[0]) & (frames < bounds32[1])
    assert 0 < inside.sum() < inside.numel()
    assert torch.equal(leaf.grad, inside.float())


def test_every_target_has_its_own_backward_pass() -> None:
    frames = noise(BATCH)
    top = library_explainer("resnet18", ("gradient",), BACKWARD, target=Target("predicted", 3)).explain(frames)
    assert top.maps["gradient"].shape == (BATCH, 3, 64, 64)
    for rank in range(3):
        target = Target("fixed", index=int(top.targets[0, rank]))
        alone = library_explainer("resnet18", ("gradient",), BACKWARD, target=target).explain(frames)
        np.testing.assert_array_equal(alone.maps["gradient"][0, 0], top.maps["gradient"][0, rank])


def test_the_bf16_copies_are_of_convolution_weights_alone() -> None:
    split = library_split("resnet18")
    assert split.trunk is not None
    trunk = MixedTrunk(split.trunk)
    halves = {name: b for name, b in trunk.named_buffers() if name.startswith("half_")}
    assert len(halves) == 20
    assert all(b.dtype == torch.bfloat16 and b.ndim == 4 for b in halves.values())


def test_no_forward_pass_outlives_its_result() -> None:
    network = Tiny()
    split = split_network(network, [choose_layer(network, 8)], 8, BATCH)
    assert split.trunk is not None
    trunk = MixedTrunk(split.trunk)
    gc.disable()
    try:
        output = trunk(probe_frames(8, BATCH).requires_grad_())
        record = weakref.ref(output.grad_fn.record)
        del output
        assert record() is None
    finally:
        gc.enable()


def test_library_networks_are_not_changed_by_it() -> None:
    source = library_source("resnet18")
    library_explainer("resnet18", ("gradient",), BACKWARD).explain(noise(1))
    assert all(p.dtype == torch.float32 and p.grad is None for p in source.module.parameters())
