"""FullGrad: its terms sum to the logit of a ReLU network, and the map is the authors' formula, term by term."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.saliency.methods.full_gradient import FullGrad, scaled
from tests.saliency.fake_pixels import Convolutions, FakeAnswers, LinearNetwork, random_frames

FRAMES = random_frames(2)


@pytest.mark.parametrize("network", [Convolutions(), LinearNetwork(9)], ids=["relu", "linear"])
def test_the_terms_sum_to_the_logit(network: nn.Module) -> None:
    ask = FakeAnswers(network, FRAMES)
    residuals = FullGrad().residuals(ask, FullGrad().maps(ask))
    assert residuals.shape == (2, 2)
    assert residuals.abs().max() < 1e-6
    assert ask.passes == 1


def test_the_residual_shows_what_another_activation_misses() -> None:
    ask = FakeAnswers(Convolutions(nn.SiLU), FRAMES)
    assert FullGrad().residuals(ask, FullGrad().maps(ask)).abs().min() > 1e-4


def test_the_map_of_a_linear_network_is_its_scaled_products() -> None:
    network = LinearNetwork(9)
    ask = FakeAnswers(network, FRAMES)
    products = (network.rows(ask.targets()) * ask.pixels()[:, None]).abs()
    low, high = products.amin((2, 3, 4), keepdim=True), products.amax((2, 3, 4), keepdim=True)
    torch.testing.assert_close(FullGrad().maps(ask), ((products - low) / (high - low)).sum(2))


def test_the_map_is_the_sum_of_all_channels_of_all_terms() -> None:
    ask = FakeAnswers(Convolutions(), FRAMES)
    terms: list[tuple[int, Tensor]] = []

    def visit(t: int, bias: Tensor, gradient: Tensor) -> None:
        if gradient.ndim == 4:
            terms.append((t, gradient * bias))

    _, gradients = ask.bias_gradients(visit)
    terms += [(t, gradient * ask.pixels()) for t, gradient in enumerate(gradients)]
    assert len(terms) == 2 * 3
    want = np.zeros((2, 2, 9, 9))
    for t, term in terms:
        for n in range(2):
            values = term[n].abs()
            values = (values - values.min()) / (values.max() - values.min())
            for channel in values:
                want[n, t] += corners_aligned(channel.numpy(), 9)
    np.testing.assert_allclose(FullGrad().maps(ask), want, rtol=1e-9)


def corners_aligned(image: np.ndarray, size: int) -> np.ndarray:
    """(h, w) resized to (size, size), linearly between pixels, of which those at the corners stay there."""
    rows, columns = (np.linspace(0, n - 1, size) for n in image.shape)
    tall = np.stack([np.interp(rows, np.arange(image.shape[0]), line) for line in image.T], 1)
    return np.stack([np.interp(columns, np.arange(image.shape[1]), line) for line in tall])


def test_a_term_that_is_constant_adds_nothing() -> None:
    assert torch.equal(scaled(torch.full((2, 3, 4, 4), -0.5)), torch.zeros(2, 3, 4, 4))
