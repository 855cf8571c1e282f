"""What the engine answers about a batch, by plain autograd on the network as it is."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layers
from saliency_pipeline.saliency.engine.masks import SegmentMasks
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import Network
from saliency_pipeline.saliency.engine.split import split_network
from saliency_pipeline.saliency.targets import Target
from tests.saliency.fake import Pooled
from tests.saliency.networks import BATCH, FP32, Tiny, noise, normalized, own_explainer, own_source

SIZE = 16
FRAMES = noise(BATCH, SIZE)
BF16 = Placement("torch", "bf16")
TARGET = Target("predicted", 2)
LAYERS = ("last", "first")


def asked(network: nn.Module, need: Need, layers: Sequence[str] = LAYERS, frames: np.ndarray = FRAMES) -> Answers:
    own = choose_layers(network, SIZE, layers)
    split = split_network(network, own, SIZE, BATCH)
    placed = Network(own_source(network, SIZE, 7), split, need, FP32)
    return Answers(placed, frames, [str(i) for i in range(len(frames))], None, TARGET)


def pixels(network: nn.Module) -> Tensor:
    return normalized(FRAMES, own_source(network, SIZE, 7))


def gradients_of(scores: Tensor, tensor: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.autograd.grad(score, tensor, retain_graph=True)[0] for score in scores.sum(0))


@pytest.fixture(params=[True, False], ids=["linear", "bent"])
def network(request: pytest.FixtureRequest) -> Pooled:
    return Pooled(request.param).float()


@pytest.mark.parametrize("need", [Need.FORWARD, Need.FORWARD | Need.PIXELS, Need.FORWARD | Need.GRADIENTS])
@pytest.mark.parametrize("layers", [("last",), LAYERS], ids=["one layer", "two layers"])
def test_scores_of_masked_frames(network: Pooled, need: Need, layers: tuple[str, ...]) -> None:
    shares, fill = torch.rand(5, 4), torch.tensor([10.0, 100.0, 200.0])
    segments = torch.arange(SIZE * SIZE).view(SIZE, SIZE) % 4
    ask = asked(network, need, layers)
    masks = SegmentMasks(shares, segments)
    kinds = [(score, own) for score in ("logit", "probability") for own in (masks, [masks] * BATCH)]
    for score, own in kinds:
        scores = ask.masked(own, fill, score)
        assert scores.shape == (BATCH, 5, TARGET.count)
        for k in range(5):
            stays = shares[k][segments].numpy()[..., None]
            mixed = np.floor(FRAMES * stays + fill.numpy() * (1 - stays) + 0.5).astype(np.uint8)
            want = network(normalized(mixed, own_source(network, SIZE, 7)))
            want = ask.scores(want.softmax(1) if score == "probability" else want)
            torch.testing.assert_close(scores[:, k], want, rtol=1e-4, atol=1e-4)


def test_frames_that_fill_a_batch_take_no_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = own_explainer(Pooled(True).float(), SIZE, 7, ("occlusion:stride=8,window=8",), layer="last")
    seen: list[int] = []
    run = explainer.network.trunk
    assert run is not None

    def counted(frames: np.ndarray | Tensor) -> Tensor:
        seen.append(len(frames))
        return run(frames)

    monkeypatch.setattr(explainer.network, "trunk", counted)
    explainer.explain(FRAMES[:1])
    # a batch of the frame itself, and four windows and none for it alone
    assert seen == [BATCH, 6]


@pytest.mark.parametrize("need", [Need.HEAD | Need.GRADIENTS, Need.HEAD | Need.PIXELS])
def test_layers_and_heads_are_those_of_the_network(network: Pooled, need: Need) -> None:
    ask = asked(network, need | Need.GRADIENTS | Need.CONTRASTS)
    assert ask.layers == ("first", "last")
    weights = torch.randn(BATCH, 3, 7)
    first = network.first(network.conv1(pixels(network))).requires_grad_()
    last = network.last(network.conv2(first))
    logits = network.fc(network.bend(last).mean((2, 3)))
    for name, output in (("first", first), ("last", last)):
        torch.testing.assert_close(ask.activations(name), output.detach())
        for got, want in zip(ask.gradients(name), gradients_of(ask.scores(logits), output), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
        contrasts = torch.einsum("ntk,nk->nt", weights, logits)
        for got, want in zip(ask.gradients(name, weights), gradients_of(contrasts, output), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ask.head(output.detach(), name), ask.logits(), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(ask.head(output.detach() * 2, name), ask.logits())


def test_rows_are_the_gradient_of_a_linear_head() -> None:
    network = Pooled(True).float()
    contrasts = Need.GRADIENTS | Need.CONTRASTS
    closed, recorded = (asked(network, contrasts | extra, ["last"]) for extra in (Need.NOTHING, Need.PIXELS))
    weights = torch.randn(BATCH, 2, 7) * (torch.rand(BATCH, 2, 7) > 0.5)
    for contrast in (None, weights):
        for got, want in zip(closed.gradients(None, contrast), recorded.gradients(None, contrast), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(closed.scores(), recorded.scores())


def test_scores_of_a_linear_head_do_not_depend_on_the_number_of_frames() -> None:
    network, frames = Pooled(True, classes=1000, channels=640).float(), noise(8 * BATCH, SIZE)
    together = asked(network, Need.ACTIVATIONS, ["last"], frames).scores()
    for start in range(0, len(frames), BATCH):
        alone = asked(network, Need.ACTIVATIONS, ["last"], frames[start : start + BATCH]).scores()
        assert torch.equal(alone, together[start : start + BATCH])


def test_moments_are_sums_of_gradients_and_computed_once(network: Pooled) -> None:
    ask = asked(network, Need.POINTS | Need.FORWARD)
    points = [(0.5, ask.pixels()), (torch.rand(BATCH, 3, SIZE, SIZE), ask.pixels() * 0.3)]
    sums, squares = ask.moments("key", lambda: points, square=True)
    want = torch.zeros(2, 2, BATCH, 3, SIZE, SIZE)
    for weight, point in points:
        leaf = point.clone().requires_grad_()
        for t, gradient in enumerate(gradients_of(ask.scores(network(leaf)), leaf)):
            want[0, t] += weight * gradient
            want[1, t] += weight * gradient**2
    torch.testing.assert_close(sums, want[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(squares, want[1], rtol=1e-4, atol=1e-6)
    assert ask.moments("key", lambda: pytest.fail("computed again"), square=True)[0] is sums
    torch.testing.assert_close(ask.forward(points[1][1]), network(points[1][1]), rtol=1e-4, atol=1e-5)


class Biased(nn.Module):
    """Every kind of bias: of a convolution, of one padded by name, of a BatchNorm before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.named, self.norm, self.conv = nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)
        self.norm.running_mean = torch.randn(4)
        self.fc = nn.Linear(5, 7)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.norm(self.named(x).relu()).relu()).relu()
        # no bias: it depends on the frame
        return self.fc(torch.addcmul(x, x, torch.ones(5, 1, 1)).mean((2, 3)))


def test_biases_and_pixels_make_up_the_score() -> None:
    network = Biased()
    ask = asked(network, Need.BIASES, ())
    terms = torch.zeros(BATCH, 2)
    seen: list[tuple[int, ...]] = []

    def visit(t: int, bias: Tensor, gradient: Tensor) -> None:
        seen.append(tuple(bias.shape))
        terms[:, t] += (bias * gradient).flatten(1).sum(1)

    scores, gradients = ask.bias_gradients(visit)
    for t, gradient in enumerate(gradients):
        terms[:, t] += (gradient * ask.pixels()).sum((1, 2, 3))
    assert sorted(seen) == sorted([(4, 1, 1), (4, 1, 1), (5, 1, 1), (7,)] * 2)
    torch.testing.assert_close(scores, ask.scores())
    torch.testing.assert_close(terms, scores, rtol=1e-4, atol=1e-4)


def test_the_score_of_the_biases_is_that_of_the_exported_network() -> None:
    network = Pooled(False).float()
    own = choose_layers(network, SIZE)
    placed = Network(own_source(network, SIZE, 7), split_network(network, own, SIZE, BATCH), Need.BIASES, BF16)
    ask = Answers(placed, FRAMES, ["a", "b"], None, TARGET)
    scores, _ = ask.bias_gradients(lambda *_: None)
    torch.testing.assert_close(scores, network(pixels(network)).gather(1, ask.targets()), rtol=1e-5, atol=1e-5)
    # those of the pass that all methods share are rounded
    assert not torch.allclose(ask.scores(), scores, rtol=1e-5)


def test_threads_pass_through_the_network_at_the_same_time() -> None:
    """Each waits in the network until the other one is there: a lock around a pass would keep them apart."""
    explainer = own_explainer(Tiny(), 8, 7, ("gradient", "gradcam"))
    whole, barrier = explainer.network.whole, threading.Barrier(2, timeout=20)

    def meet(pixels: Tensor) -> object:
        barrier.wait()
        return whole(pixels)

    explainer.network.whole = meet
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(explainer.explain, [noise(BATCH, 8)] * 2)
    np.testing.assert_array_equal(first.maps["gradient"], second.maps["gradient"])
