"""Depthwise convolutions for training on a CPU, whose gradients avoid the slow kernels of oneDNN."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

WIDEST = 3
"""Greatest width of a kernel for which the gradient of the weights is fast."""

_convolution_backward = torch.ops.aten.convolution_backward.default


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with the same tensors and values as `nn.Conv2d`, and a faster backward pass on a CPU.

    oneDNN has no fast kernel for the weight gradient of kernels wider than 3, nor in bf16 for the input gradient with a
    stride: in EfficientNet-Lite0 these take longer than all other convolutions together. Here the weight gradient is
    computed for at most three columns of the kernel at a time, in float32, and the input gradient with a stride in
    float32 as well.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, h, w), in bf16 under autocast."""
        if not torch.is_grad_enabled():
            return super().forward(images)
        return _convolved(self, images, self.padding)


class SameDepthwiseConv2d(Conv2dSame):
    """`DepthwiseConv2d` for timm's layers with the padding of TensorFlow, which is chosen by the size of the input."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ⌈H / stride⌉, ⌈W / stride⌉), in bf16 under autocast."""
        if not torch.is_grad_enabled():
            same: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
            return same
        return _convolved(self, pad_same(images, list(self.kernel_size), list(self.stride)), (0, 0))


_FAST: dict[type[nn.Conv2d], type[nn.Conv2d]] = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: SameDepthwiseConv2d}


def use_fast_depthwise(network: nn.Module) -> None:
    """Change the depthwise convolutions of a network on a CPU to those with a faster backward pass, where they differ.

    Names, tensors and hooks are kept.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and type(module) in _FAST and _is_slow(module):
            module.__class__ = _FAST[type(module)]


def _is_slow(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and (layer.kernel_size[1] > WIDEST or max(layer.stride) > 1)
    )


def _convolved(layer: nn.Conv2d, images: Tensor, padding: str | tuple[int, ...]) -> Tensor:
    if torch.is_autocast_enabled(images.device.type):
        images = images.to(torch.get_autocast_dtype(images.device.type))
    convolved: Tensor = _Depthwise.apply(images, layer.weight, layer.stride, padding)
    return convolved if layer.bias is None else convolved + layer.bias.to(convolved.dtype).view(-1, 1, 1)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of images (N, C, H, W), float32 or bf16, with a float32 kernel (C, 1, a, b)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, kernel)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, kernel.to(images.dtype), None, stride, padding, 1, len(kernel))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        images, kernel = ctx.saved_tensors
        for_images = for_kernel = None
        if ctx.needs_input_grad[0]:
            own = gradient.float() if max(ctx.stride) > 1 else gradient
            # only its shape and strides are read
            shaped = torch.empty_like(images, dtype=own.dtype)
            backward = _backward(own, shaped, kernel.to(own.dtype), ctx.stride, ctx.padding, [True, False, False])
            for_images = backward[0].to(images.dtype)
        if ctx.needs_input_grad[1]:
            if kernel.shape[3] > WIDEST:
                gradient, images = gradient.float(), images.float()
            for_kernel = _kernel_gradient(gradient, images, kernel.to(images.dtype), ctx.stride, ctx.padding)
            for_kernel = for_kernel.to(kernel.dtype)
        return for_images, for_kernel, None, None


def _kernel_gradient(
    gradient: Tensor, images: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Gradient of the kernel (C, 1, a, b), at most `WIDEST` of its columns at a time."""
    height, width = kernel.shape[2:]
    if width <= WIDEST:
        return cast("Tensor", _backward(gradient, images, kernel, stride, padding, [False, True, False])[1])
    images = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (step * (size - 1) for step, size in zip(stride, gradient.shape[2:], strict=True))
    parts = []
    for left in range(0, width, WIDEST):
        part = kernel[..., left : left + WIDEST]
        seen = images[:, :, : rows + height, left : left + columns + part.shape[3]]
        parts.append(_backward(gradient, seen, part, stride, (0, 0), [False, True, False])[1])
    return torch.cat(parts, 3)


def _backward(
    gradient: Tensor, images: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], of: list[bool]
) -> Any:
    """Gradients of images, kernel and bias, those that `of` asks for."""
    size = len(kernel)
    return _convolution_backward(gradient, images, kernel, None, stride, padding, (1, 1), False, (0, 0), size, of)
