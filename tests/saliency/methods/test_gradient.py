"""Pixel gradients: a linear model's are its weights, a tiny network's are finite differences, both conventions."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.saliency.methods.gradient import simonyan, smilkov
from saliency_pipeline.saliency.targets import Target
from tests import reference
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
