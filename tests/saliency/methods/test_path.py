"""Path methods: exact on linear networks, complete on others, equal to captum's, independent of their neighbors."""

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.methods.path import ExpectedGradients, IntegratedGradients, blurred
from tests.saliency.fake_pixels import Convolutions, FakeAnswers, LinearNetwork, random_frames

FRAMES = random_frames(2)
OTHERS = random_frames(3, seed=1)


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
def test_integrated_gradients_of_a_linear_network_are_its_weights_times_the_way(baseline: str) -> None:
    network = LinearNetwork(9)
    ask, method = FakeAnswers(network, FRAMES), IntegratedGradients(nodes=2, baseline=baseline)
    start = {
        "mean": torch.zeros(1),
        "black": ask.color(0.0),
        "white": ask.color(1.0),
        "blur": blurred(ask.pixels(), 9 / 20),
    }[baseline]
    want = (network.rows(ask.targets()) * (ask.pixels() - start)[:, None]).sum(2)
    maps = method.maps(ask)
    torch.testing.assert_close(maps, want)
    assert maps.shape == (2, 2, 9, 9)
    assert method.residuals(ask, maps).abs().max() < 1e-6


def test_more_nodes_integrate_better() -> None:
    residuals = []
    for nodes in (1, 3, 20):
        ask, method = FakeAnswers(Convolutions(nn.Tanh), FRAMES), IntegratedGradients(nodes=nodes)
        residuals.append(float(method.residuals(ask, method.maps(ask)).abs().max()))
        assert ask.passes == nodes
    assert residuals[0] > 10 * residuals[1] > 100 * residuals[2]
    assert residuals[2] < 1e-6


@pytest.mark.parametrize("target", [0, 2])
def test_integrated_gradients_are_captums(target: int) -> None:
    import captum.attr

    ask = FakeAnswers(Convolutions(), FRAMES, (target,))
    start = blurred(ask.pixels(), 9 / 20)
    reference = captum.attr.IntegratedGradients(ask.network).attribute(
        ask.pixels(), start, target, n_steps=20, method="gausslegendre"
    )
    maps = IntegratedGradients(baseline="blur").maps(ask)[:, 0]
    torch.testing.assert_close(maps, reference.sum(1), rtol=1e-9, atol=1e-9)


def test_expected_gradients_of_a_linear_network_are_its_weights_times_the_mean_way() -> None:
    network = LinearNetwork(9)
    ask, method = FakeAnswers(network, FRAMES, background=OTHERS), ExpectedGradients(samples=5, seed=3)
    maps = method.maps(ask)
    for n, key in enumerate(ask.keys):
        generators = [ask.random("expected-gradients", 3, k)[n] for k in range(5)]
        start = torch.stack([ask.background()[rng.integers(3)] for rng in generators]).mean(0)
        want = (network.rows(ask.targets())[n] * (ask.pixels()[n] - start)).sum(1)
        torch.testing.assert_close(maps[n], want, msg=key)
    assert method.residuals(ask, maps).abs().max() < 1e-6


def test_expected_gradients_are_complete_in_the_mean() -> None:
    ask = FakeAnswers(Convolutions(), FRAMES, background=OTHERS)
    few, many = (ExpectedGradients(samples=samples) for samples in (2, 400))
    residuals = [float(method.residuals(ask, method.maps(ask)).abs().max()) for method in (few, many)]
    assert residuals[1] < residuals[0] / 4
    ways = many.maps(ask).abs().sum((2, 3))
    assert residuals[1] < 0.02 * float(ways.min())


def test_expected_gradients_are_captums_from_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import captum.attr

    ask, method = FakeAnswers(Convolutions(), FRAMES, (1,), background=OTHERS), ExpectedGradients(samples=4)
    draws = [tuple(map(torch.from_numpy, draw)) for draw in method._draws(ask, 3)]
    # captum expands each frame to its samples in turn
    images = torch.stack([chosen for chosen, _ in draws], 1).flatten()
    positions = torch.stack([position.flatten() for _, position in draws], 1).flatten()
    monkeypatch.setattr(np.random, "choice", lambda count, size: images.numpy())
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: positions.numpy())
    reference = captum.attr.GradientShap(ask.network).attribute(ask.pixels(), ask.background(), n_samples=4, target=1)
    torch.testing.assert_close(method.maps(ask)[:, 0], reference.sum(1), rtol=1e-9, atol=1e-9)


def test_random_numbers_depend_on_the_key_and_the_seed_alone() -> None:
    network, keys = Convolutions(), ("a", "b")
    together = ExpectedGradients(samples=3).maps(FakeAnswers(network, FRAMES, keys=keys, background=OTHERS))
    for n in range(2):
        alone = FakeAnswers(network, FRAMES[n : n + 1], keys=keys[n : n + 1], background=OTHERS)
        torch.testing.assert_close(ExpectedGradients(samples=3).maps(alone)[0], together[n], rtol=1e-9, atol=1e-9)
        assert not torch.allclose(ExpectedGradients(samples=3, seed=1).maps(alone)[0], together[n])


def test_a_blurred_frame_keeps_its_mean_color_and_loses_its_details() -> None:
    flat = torch.full((1, 3, 12, 12), 0.7)
    torch.testing.assert_close(blurred(flat, 2.0), flat)
    noisy = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert blurred(noisy, 2.0).std() < 0.3 * noisy.std()
    point = torch.zeros(1, 3, 21, 21)
    point[..., 10, 10] = 1
    smooth = blurred(point, 2.0)[0, 0]
    torch.testing.assert_close(smooth, smooth.t())
    assert smooth[10, 12] / smooth[10, 10] == pytest.approx(np.exp(-0.5), rel=1e-5)


@pytest.mark.parametrize("options", [{"nodes": 0}, {"baseline": "gray"}])
def test_bad_parameters_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        IntegratedGradients(**options)
