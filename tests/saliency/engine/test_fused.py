"""Fused convolutions against the same graphs with every operator by itself: outputs, gradients, what is left alone."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.functional import conv2d, hardtanh, relu, relu6

from saliency_pipeline.saliency.engine import fused, mixed
from saliency_pipeline.saliency.engine.fused import fuse_convolutions
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.mixed import MixedNetwork
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from tests.saliency.networks import BATCH

SIZE = 12
Forward = Callable[[nn.ModuleList, Tensor], Tensor]


def activated(convs: nn.ModuleList, x: Tensor) -> Tensor:
    return relu6(convs[1](convs[1](hardtanh(convs[1](relu(convs[0](x))), -0.5, 0.5))))


def cells(convs: nn.ModuleList, x: Tensor) -> Tensor:
    return relu(convs[5](relu(convs[4](relu(convs[3](relu(convs[2](convs[0](x)))))))))


def summed(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = relu(convs[0](x))
    x = relu(x + convs[1](x))
    x = relu(convs[2](x) + convs[1](x))
    return convs[1](x) + x


def summed_in_bounds(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = convs[0](x)
    return relu6(convs[1](x) + x)


def broadcast(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = convs[0](x)
    return relu(convs[2](x) + convs[2](x.mean((2, 3), keepdim=True)))


def read_twice(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = convs[0](x)
    y = convs[1](x)
    return relu(x) + x + (y + y)


def weighted(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = relu(convs[0](x))
    return relu(conv2d(x, convs[2].weight * x.mean()) + torch.add(convs[2](x), x, alpha=2))


class Connected(nn.Module):
    """Convolutions that a function connects, global pooling and a linear layer."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False),
                nn.Conv2d(8, 8, 1),
                nn.Conv2d(8, 8, 1, stride=(2, 3)),
                nn.Conv2d(8, 8, 1, groups=2),
                nn.Conv2d(8, 8, 1, padding=1),
            ]
        )
        self.fc, self.connect, self.last = nn.Linear(8, 4), forward, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.connect(self.convs, x)).mean((2, 3)))


def split_of(forward: Forward) -> SplitNetwork:
    network = Connected(forward).eval().requires_grad_(False)
    return split_network(network, [choose_layer(network, SIZE, "last")], SIZE, BATCH)


def graph_of(forward: Forward) -> fx.GraphModule:
    whole = split_of(forward).whole
    assert isinstance(whole, fx.GraphModule)
    return whole


def results(graph: nn.Module, frames: Tensor) -> list[Tensor]:
    leaf = frames.clone().requires_grad_()
    *_, output, logits = graph(leaf)
    scores = logits[:, 1].sum(), logits[:, 2].sum()
    gradients = [torch.autograd.grad(score, leaf, retain_graph=True)[0] for score in scores]
    return [output, logits, *gradients]


def kinds(graph: fx.GraphModule) -> list[str]:
    """Names of the operators that are left, other than pooling and linear layers."""
    names = [node.target.__name__.split(".")[0] for node in graph.graph.nodes if node.op == "call_function"]
    return sorted(name for name in names if name not in ("mean", "linear", "fused_convolution"))


LEFT: dict[Forward, list[str]] = {
    activated: [],
    cells: [],
    summed: [],
    summed_in_bounds: ["relu6"],
    broadcast: ["add", "relu"],
    read_twice: ["add", "add", "add", "relu"],
    weighted: ["add", "add", "conv2d", "mul", "relu"],
}
"""What no convolution computes in its kernel."""


@pytest.mark.parametrize(("forward", "left"), LEFT.items())
def test_fused_graphs_are_those_of_single_operators(forward: Forward, left: list[str]) -> None:
    plain = graph_of(forward)
    fused_graph = copy.deepcopy(plain)
    fuse_convolutions(fused_graph, BATCH, SIZE)
    assert kinds(fused_graph) == left
    frames = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    for x in (frames, frames.contiguous(memory_format=torch.channels_last)):
        for ours, reference in zip(results(fused_graph, x), results(plain, x), strict=True):
            assert reference.abs().max() > 0
            assert (ours - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("forward", LEFT)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_the_backward_pass_in_bf16_is_theirs(
    forward: Forward, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed, "HALF", dtype)
    split = split_of(forward)
    assert split.trunk is not None
    assert split.head is not None
    frames = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = results(graph_of(forward), frames)
    fuse_convolutions(split.trunk, BATCH, SIZE)
    output, logits, *gradients = results(MixedNetwork(split.trunk, split.head), frames)
    for ours, reference in zip((output, logits), wanted[:2], strict=True):
        assert (ours - reference).abs().max() <= 1e-5 * reference.abs().max()
    for ours, reference in zip(gradients, wanted[2:], strict=True):
        assert (ours - reference).abs().max() <= tolerance * reference.abs().max()


def test_the_gradient_of_a_frame_does_not_depend_on_its_place() -> None:
    generator = torch.Generator().manual_seed(2)
    # one product of all frames rounds these otherwise on CPUs with AVX2
    for side, stride, channels, inputs in ((14, 1, 8, 8), (14, 1, 96, 24), (28, 2, 37, 16)):
        x = torch.empty(2, inputs, side, side)
        signal = torch.randn(2, channels, side // stride, side // stride, generator=generator)
        signal = signal.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, inputs, 1, 1, generator=generator)
        how = {"stride": [stride] * 2, "padding": [0, 0], "dilation": [1, 1], "groups": 1}
        own, turned = (fused._pulled(signals, x, weight, how) for signals in (signal, signal.flip(0)))
        assert torch.equal(turned.flip(0), own)


def test_sums_of_unknown_shapes_and_networks_without_onednn_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = graph_of(summed)
    monkeypatch.setattr(fused, "shapes_of", lambda *_: {})
    unknown, without = copy.deepcopy(plain), copy.deepcopy(plain)
    fuse_convolutions(unknown, BATCH, SIZE)
    assert kinds(unknown) == ["add", "add", "add", "relu", "relu"]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    fuse_convolutions(without, BATCH, SIZE)
    assert kinds(without) == kinds(plain)
