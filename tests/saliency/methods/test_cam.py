"""Grad-CAM: equal to its slow twin, to finite differences, and to the class activation map of a linear head."""

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.saliency.methods.cam import grad_cam, linear_grad_cam
from tests import reference
from tests.saliency.networks import Tiny, normalized, own_explainer, own_source


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 3), (3, 4, 2, 5)])
def test_grad_cam_equals_its_slow_twin(shape: tuple[int, ...]) -> None:
    activations, gradients = numbers(*shape), numbers(*shape, seed=1)
    slow = [reference.grad_cam(a, g) for a, g in zip(activations.numpy(), gradients.numpy(), strict=True)]
    np.testing.assert_allclose(grad_cam(activations, gradients), slow, atol=1e-12)


def test_under_a_linear_head_it_is_the_class_activation_map_over_the_cells() -> None:
    activations, weights = numbers(2, 5, 3, 4), numbers(2, 3, 5, seed=1)
    maps = linear_grad_cam(activations, weights)
    for n in range(2):
        for t in range(3):
            cam = reference.class_activation_map(activations[n].numpy(), weights[n, t].numpy())
            np.testing.assert_allclose(maps[n, t], np.maximum(cam, 0) / 12, atol=1e-12)
            gradient = (weights[n, t] / 12)[None, :, None, None].expand(1, 5, 3, 4)
            np.testing.assert_allclose(maps[n, t], grad_cam(activations[n : n + 1], gradient)[0], atol=1e-12)


def test_grad_cam_follows_from_finite_differences_of_the_head() -> None:
    head = nn.Sequential(nn.Conv2d(4, 5, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    head = head.double().requires_grad_(False)
    activations = numbers(1, 4, 3, 3)
    gradients = reference.central_differences(
        lambda a: float(head(torch.from_numpy(a)[None])[0, 2]), activations[0].numpy()
    )
    leaf = activations.clone().requires_grad_()
    (exact,) = torch.autograd.grad(head(leaf)[0, 2], leaf)
    slow = reference.grad_cam(activations[0].numpy(), gradients)
    np.testing.assert_allclose(grad_cam(activations, exact)[0], slow, atol=1e-8)
    assert slow.max() > 0


def test_the_engine_gives_the_class_activation_map_of_a_network_with_pooling_and_one_linear_layer() -> None:
    network = Tiny()
    explainer = own_explainer(network, 8, 7, ("gradcam",))
    assert explainer.split.linear is not None
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    explanation = explainer.explain(frames)
    pixels = normalized(frames, own_source(network, 8, 7))
    activations = network.act(network.norm(network.conv(pixels)))
    for n in range(2):
        weights = network.fc.weight[int(explanation.targets[n, 0])]
        cam = reference.class_activation_map(activations[n].numpy(), weights.numpy())
        np.testing.assert_allclose(explanation.maps["gradcam"][n, 0], np.maximum(cam, 0) / 16, atol=1e-5)
