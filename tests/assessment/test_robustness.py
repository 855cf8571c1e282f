"""Max-sensitivity and infidelity: cases that can be computed by hand, and captum with the same noise and squares."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Inquiry, Network
from saliency_pipeline.assessment.metrics.registry import find_metrics
from saliency_pipeline.assessment.metrics.robustness import Infidelity, MaxSensitivity
from saliency_pipeline.errors import OptionError

SIZE = 8
FRAMES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


class Fake:
    """A network that is two functions of the frames, scaled to [0, 1]."""

    color = (51, 0, 102)

    def __init__(self, score: Callable[..., object], explain: Callable[..., object]) -> None:
        self.score, self.own = score, explain
        self.asked: list[np.ndarray] = []

    def scores(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(self.score(frames / 255, targets), np.float64)

    def explain(self, method: str, frames: np.ndarray, targets: np.ndarray, keys: Sequence[str]) -> Floats | None:
        self.asked.append(frames)
        maps = self.own(frames / 255, targets)
        return None if maps is None else np.asarray(maps, np.float32)

    def randomized(self) -> list[Network]:
        return []


def batch_of(network: Fake, rows: Sequence[int] = (0, 1, 2)) -> ImageBatch:
    keys, targets = [f"image {row}" for row in rows], np.array([0, 2, 1])[list(rows)]
    return ImageBatch(keys, FRAMES[list(rows)], targets, targets, [np.zeros((0, 4))] * len(rows), network)


def ask_for(network: Fake, maps: np.ndarray | None = None, signed: bool = True) -> Inquiry:
    batch = batch_of(network)
    return Inquiry(batch, "method", np.zeros((3, SIZE, SIZE), np.float32) if maps is None else maps, signed)


class Tiny(nn.Module):
    """A small smooth network on frames in [0, 1], (N, 3, S, S) to (N, 3) probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels).softmax(1)

    def score(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self(tensor(frames)).numpy()[range(len(frames)), targets]

    def gradient(self, pixels: Tensor, target: Tensor) -> Tensor:
        """Input times gradient, (N, 3, S, S)."""
        with torch.enable_grad():
            pixels = pixels.detach().requires_grad_()
            scores = self(pixels).gather(1, target[:, None]).sum()
            return pixels.detach() * torch.autograd.grad(scores, pixels)[0]

    def explain(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return self.gradient(tensor(frames), torch.from_numpy(targets)).sum(1).numpy()


def tensor(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(frames, np.float64)).permute(0, 3, 1, 2)


def test_max_sensitivity_is_the_largest_relative_change() -> None:
    answers = iter([[3, 4], [3, 4], [6, 4], [3, 0]])
    network = Fake(np.zeros_like, lambda frames, _: [[next_] for next_ in [next(answers)] * 3])
    values = MaxSensitivity(samples=3).values(ask_for(network))["max-sensitivity"]
    np.testing.assert_allclose(values, 4 / 5)


def test_a_map_of_zeros_is_stable_or_has_no_value() -> None:
    answers = iter([np.zeros((3, 2, 2)), np.arange(3)[:, None, None] * np.ones((3, 2, 2))])
    values = MaxSensitivity(samples=1).values(ask_for(Fake(np.zeros_like, lambda *_: next(answers))))
    np.testing.assert_array_equal(values["max-sensitivity"], [0, np.nan, np.nan])


def test_max_sensitivity_of_a_method_that_ignores_the_image_is_0_and_of_other_maps_undefined() -> None:
    constant = Fake(np.zeros_like, lambda frames, _: np.ones((3, 2, 2)))
    np.testing.assert_array_equal(MaxSensitivity().values(ask_for(constant))["max-sensitivity"], 0)
    elsewhere = Fake(np.zeros_like, lambda *_: None)
    np.testing.assert_array_equal(MaxSensitivity().values(ask_for(elsewhere))["max-sensitivity"], np.nan)


def test_noise_is_small_and_depends_on_the_key_alone() -> None:
    together, alone = (Fake(np.zeros_like, lambda frames, _: frames[..., 0]) for _ in range(2))
    MaxSensitivity(samples=4).values(Inquiry(batch_of(together), "method", np.zeros((3, 1, 1), np.float32)))
    MaxSensitivity(samples=4).values(Inquiry(batch_of(alone, [1]), "other", np.zeros((1, 1, 1), np.float32)))
    np.testing.assert_array_equal(np.stack(together.asked)[:, 1], np.stack(alone.asked)[:, 0])
    differences = np.stack(together.asked).astype(int) - FRAMES
    assert not differences[0].any()
    inside = (FRAMES > 5) & (FRAMES < 250)
    assert set(np.unique(differences[1:][:, inside])) == set(range(-5, 6))
    assert (differences[1] != differences[2]).any()


def test_max_sensitivity_is_that_of_captum_with_the_same_noise() -> None:
    tiny = Tiny()
    network = Fake(tiny.score, tiny.explain)
    values = MaxSensitivity(samples=6, radius=0.1).values(ask_for(network))["max-sensitivity"]
    noisy = torch.stack([tensor(frames / 255) for frames in network.asked[1:]], 1).flatten(0, 1)

    def explain(pixels: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        # captum passes a tuple of the frames and then a tensor of the noisy ones
        return (tiny.gradient(pixels[0] if isinstance(pixels, tuple) else pixels, target).sum(1),)

    expected = sensitivity_max(
        explain,
        tensor(FRAMES / 255),
        lambda pixels: noisy,
        n_perturb_samples=6,
        target=torch.tensor([0, 2, 1]),
    )
    assert (values > 0.01).all()
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_infidelity_of_exact_attributions_is_0_and_that_of_a_map_of_zeros_the_mean_square() -> None:
    weights = np.random.default_rng(1).normal(size=(SIZE, SIZE, 3))
    network = Fake(lambda frames, _: (frames * weights).sum((1, 2, 3)), np.zeros_like)
    exact = ((FRAMES - np.array(network.color)) / 255 * weights).sum(3).astype(np.float32)
    for maps in (exact, -3 * exact):
        np.testing.assert_allclose(Infidelity().values(ask_for(network, maps))["infidelity"], 0, atol=1e-10)
    whole = Infidelity(side=1.0, samples=1).values(ask_for(network))["infidelity"]
    np.testing.assert_allclose(whole, exact.astype(np.float64).sum((1, 2)) ** 2, rtol=1e-5)


def test_infidelity_is_that_of_captum_with_the_same_squares() -> None:
    tiny = Tiny()
    network = Fake(tiny.score, tiny.explain)
    metric, maps = Infidelity(samples=7), np.random.default_rng(2).normal(size=(3, SIZE, SIZE)).astype(np.float32)
    values = metric.values(ask_for(network, maps))["infidelity"]
    squares = torch.zeros(3, 7, 3, SIZE, SIZE, dtype=torch.float64)
    for row, corners in enumerate(metric._corners(batch_of(network))):
        for sample, (top, left) in enumerate(corners):
            squares[row, sample, :, top : top + 2, left : left + 2] = 1
    squares = squares.flatten(0, 1)
    fill = torch.tensor(network.color, dtype=torch.float64)[:, None, None] / 255
    expected = infidelity(
        tiny,
        lambda pixels: (squares, pixels * (1 - squares) + fill * squares),
        tensor(FRAMES / 255),
        torch.from_numpy(maps).double()[:, None].expand(3, 3, SIZE, SIZE) / 3,
        target=torch.tensor([0, 2, 1]),
        n_perturb_samples=7,
        normalize=True,
    )
    assert (values > 0).all()
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize(("shape", "signed"), [((3, 2, 2), True), ((3, SIZE, SIZE), False)])
def test_infidelity_is_undefined_for_other_maps(shape: tuple[int, ...], signed: bool) -> None:
    network = Fake(lambda *_: pytest.fail("asked for scores"), np.zeros_like)
    values = Infidelity().values(ask_for(network, np.ones(shape, np.float32), signed))
    np.testing.assert_array_equal(values["infidelity"], np.nan)


def test_parameters_are_checked_and_infidelity_is_optional() -> None:
    assert find_metrics(["max-sensitivity:samples=3,radius=0.1"]) == (MaxSensitivity(samples=3, radius=0.1),)
    with pytest.raises(OptionError, match="--metric max-sensitivity:radius=2: use a number from"):
        find_metrics(["max-sensitivity:radius=2"])
    assert Infidelity() not in find_metrics([])
