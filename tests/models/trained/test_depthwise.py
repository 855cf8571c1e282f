"""Depthwise convolutions for training: values and gradients are those of PyTorch's, also in bf16 and twice over."""

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from saliency_pipeline.models.trained.depthwise import DepthwiseConv2d, SameDepthwiseConv2d, use_fast_depthwise

CASES = [
    *[(nn.Conv2d, kernel, stride, bias) for kernel in (5, 7) for stride in (1, 2) for bias in (False, True)],
    *[(Conv2dSame, kernel, 2, False) for kernel in (3, 5)],
    (nn.Conv2d, (3, 5), (2, 1), True),
]


def layers(
    kind: type[nn.Conv2d], kernel: int | tuple[int, int], stride: int | tuple[int, int], bias: bool
) -> tuple[nn.Module, nn.Module]:
    """A depthwise layer, and the same with the fast backward pass."""
    torch.manual_seed(0)
    padding = 0 if kind is Conv2dSame else 2
    layer = nn.Sequential(kind(6, 6, kernel, stride, padding, groups=6, bias=bias))
    fast = copy.deepcopy(layer)
    use_fast_depthwise(fast)
    assert type(fast[0]) is (SameDepthwiseConv2d if kind is Conv2dSame else DepthwiseConv2d)
    return layer, fast


def gradients(layer: nn.Module, images: torch.Tensor, *, bf16: bool = False) -> list[torch.Tensor]:
    """Output, and gradients of the images and of all parameters."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = layer(images)
    (output.float() ** 2).sum().backward()
    return [output.detach(), images.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize(("kind", "kernel", "stride", "bias"), CASES)
def test_values_and_gradients_are_those_of_the_layer(kind, kernel, stride, bias):
    plain, fast = layers(kind, kernel, stride, bias)
    images = torch.randn(3, 6, 15, 14).to(memory_format=torch.channels_last)
    for expected, value in zip(gradients(plain, images), gradients(fast, images), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    with torch.no_grad():
        assert torch.equal(fast(images), plain(images))
    exact = gradients(plain, images)
    for expected, value in zip(exact, gradients(fast, images, bf16=True), strict=True):
        torch.testing.assert_close(value.float(), expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


def test_gradients_of_gradients_are_those_of_the_layer():
    plain, fast = layers(nn.Conv2d, 5, 2, False)
    images = torch.randn(2, 6, 9, 9)
    second = []
    for layer in (plain, fast):
        own = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((layer(own) ** 3).sum(), own, create_graph=True)
        (gradient**2).sum().backward()
        second.append((own.grad, layer[0].weight.grad))
    for expected, value in zip(*second, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_other_layers_stay_as_they_are():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 8, 5, groups=4),
        nn.Conv2d(8, 8, 5, groups=2),
        nn.Conv2d(8, 8, 5, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="reflect"),
    )
    use_fast_depthwise(network)
    assert {type(layer) for layer in network} == {nn.Conv2d}
