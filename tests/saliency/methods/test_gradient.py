"""Pixel gradients: a linear model's are its weights, a tiny network's are finite differences; averages over noise."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.methods.gradient import (
    Gradient,
    GradientSmilkov,
    InputXGradient,
    SmoothGrad,
    simonyan,
    smilkov,
)
from saliency_pipeline.saliency.targets import Target
from tests import reference
from tests.saliency.fake_pixels import Convolutions, FakeAnswers, LinearNetwork, random_frames
from tests.saliency.networks import Tiny, normalized, own_explainer, own_source


class Linear(nn.Module):
    """Logits linear in the pixels; the identity gives it a layer on a grid."""

    def __init__(self, size: int, classes: int = 4) -> None:
        super().__init__()
        self.grid = nn.Identity()
        weight = torch.randn(classes, 3 * size * size, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.grid(x * 1.0).flatten(1), self.weight)


@pytest.mark.parametrize(("fast", "slow"), [(simonyan, reference.simonyan), (smilkov, reference.smilkov)])
def test_conventions_equal_their_slow_twins(fast: object, slow: object) -> None:
    gradients = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for got, one in zip(fast(gradients), gradients, strict=True):
        np.testing.assert_allclose(got, slow(one.numpy()), rtol=1e-6)


@pytest.mark.parametrize("target", range(4))
def test_a_linear_models_gradient_is_its_weights(target: int) -> None:
    network = Linear(6).eval()
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    explainer = own_explainer(network, 6, 4, ("gradient", "gradient-smilkov"), Target("fixed", index=target))
    maps = explainer.explain(frames).maps
    weights = network.weight[target].view(3, 6, 6).numpy()
    for n in range(3):
        np.testing.assert_allclose(maps["gradient"][n, 0], reference.simonyan(weights), rtol=1e-6)
        np.testing.assert_allclose(maps["gradient-smilkov"][n, 0], reference.smilkov(weights), rtol=1e-6)


def test_a_tiny_networks_gradient_is_its_finite_differences() -> None:
    network = Tiny()
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    explanation = own_explainer(network, 8, 7, ("gradient",)).explain(frames)
    exact = Tiny().double()
    for n, pixels in enumerate(normalized(frames, own_source(network, 8, 7)).double().numpy()):
        target = int(explanation.targets[n, 0])

        def logit(x: np.ndarray, target: int = target) -> float:
            return float(exact(torch.from_numpy(x)[None])[0, target])

        wanted = reference.simonyan(reference.central_differences(logit, pixels))
        np.testing.assert_allclose(explanation.maps["gradient"][n, 0], wanted, atol=1e-4 * wanted.max())


def test_the_methods_are_their_formulas_for_each_target() -> None:
    ask = FakeAnswers(Convolutions(), random_frames(2))
    for t, gradients in enumerate(ask.pixel_gradients()):
        for n in range(2):
            one = gradients[n].numpy()
            np.testing.assert_allclose(Gradient().maps(ask)[n, t], reference.simonyan(one))
            np.testing.assert_allclose(GradientSmilkov().maps(ask)[n, t], reference.smilkov(one))
            np.testing.assert_allclose(InputXGradient().maps(ask)[n, t], (ask.pixels()[n] * gradients[n]).sum(0))


def test_input_times_gradient_of_a_linear_network_sums_to_its_logit_without_the_bias() -> None:
    network = LinearNetwork(9)
    ask = FakeAnswers(network, random_frames(2))
    maps = InputXGradient().maps(ask)
    torch.testing.assert_close(maps, (network.rows(ask.targets()) * ask.pixels()[:, None]).sum(2))
    torch.testing.assert_close(maps.sum((2, 3)), ask.scores() - network.fc.bias[ask.targets()])


@pytest.mark.parametrize("noise", [0.0, 0.15, 1.0])
def test_noise_changes_no_gradient_of_a_linear_network(noise: float) -> None:
    network = LinearNetwork(9)
    ask = FakeAnswers(network, random_frames(2))
    weights = network.rows(ask.targets())
    for stat, want in (("mean", weights.abs()), ("square", weights**2), ("var", torch.zeros_like(weights))):
        maps = SmoothGrad(samples=5, noise=noise, stat=stat).maps(ask)
        torch.testing.assert_close(maps, want.amax(2), rtol=1e-9, atol=1e-12)
        assert maps.min() >= 0


def test_without_noise_the_mean_is_the_gradient() -> None:
    ask = FakeAnswers(Convolutions(), random_frames(2))
    torch.testing.assert_close(SmoothGrad(samples=2, noise=0).maps(ask), Gradient().maps(ask))


@pytest.mark.parametrize(("stat", "kind"), [("mean", "smoothgrad"), ("square", "smoothgrad_sq"), ("var", "vargrad")])
def test_statistics_are_captums_for_the_same_noise(stat: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from captum.attr import NoiseTunnel, Saliency

    ask, method = FakeAnswers(Convolutions(), random_frames(2), (3,)), SmoothGrad(samples=4, stat=stat, seed=5)
    noise = torch.stack([points - ask.pixels() for _, points in method._points(ask)], 1).flatten(0, 1)
    monkeypatch.setattr(torch, "normal", lambda mean, deviations: noise)
    signed = NoiseTunnel(Saliency(ask.network)).attribute(ask.pixels(), nt_type=kind, nt_samples=4, target=3, abs=False)
    torch.testing.assert_close(method.maps(ask)[:, 0], signed.abs().amax(1), rtol=1e-9, atol=1e-12)


def test_noise_is_relative_to_the_range_of_each_frame() -> None:
    frames = random_frames(2, 32)
    frames[1] = frames[1] // 4 + 90
    ask = FakeAnswers(Convolutions(), frames)
    points = torch.stack([points for _, points in SmoothGrad(samples=10, noise=0.2)._points(ask)])
    for n, pixels in enumerate(ask.pixels()):
        noise = points[:, n] - pixels
        assert float(noise.std() / (pixels.max() - pixels.min())) == pytest.approx(0.2, rel=0.02)


def test_noise_depends_on_the_key_and_the_seed_alone() -> None:
    network, frames = Convolutions(), random_frames(1).repeat(2, 0)
    together = SmoothGrad(samples=3).maps(FakeAnswers(network, frames, keys=("a", "b")))
    assert not torch.allclose(together[0], together[1])
    alone = FakeAnswers(network, frames[:1], keys=("b",))
    torch.testing.assert_close(SmoothGrad(samples=3).maps(alone)[0], together[1], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(SmoothGrad(samples=3, seed=1).maps(alone)[0], together[1])


def test_statistics_of_the_same_noise_share_its_passes() -> None:
    ask = FakeAnswers(Convolutions(), random_frames(2))
    for stat in ("mean", "square", "var"):
        SmoothGrad(samples=3, stat=stat).maps(ask)
    assert ask.passes == 3


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"stat": "median"}])
def test_bad_parameters_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        SmoothGrad(**options)


def test_a_methods_parameters_are_in_its_name() -> None:
    assert SmoothGrad().canonical == "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"
    assert Gradient().canonical == "gradient"
    assert SmoothGrad(samples=10).cost == 30
