"""Networks for validation whose BatchNorm layers are folded into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from saliency_pipeline.models.probe import evaluating

TOLERANCE = 1e-4
"""Greatest difference of logits, relative to the largest, that counts as rounding in float32."""


class FoldedNetwork:
    """A network in evaluation mode with folded BatchNorm layers, whose weights follow those of another network.

    With running mean m, variance v, weight g and bias b of a BatchNorm layer, the kernel K of the convolution before it
    becomes K g / √(v + ε) and its bias b + (bias − m) g / √(v + ε); one pass over the activations is saved.

    Attributes:
        network: the folded network; all tensors but the folded ones are shared with the original.
        layers: for each folded BatchNorm layer, the original convolution, the original layer and the new convolution.
    """

    def __init__(self, network: nn.Module, pairs: list[tuple[str, str]]) -> None:
        own = dict(network.named_modules())
        self.network = copy.deepcopy(network).eval()
        for name, module in self.network.named_modules():
            module._parameters.update(own[name]._parameters)
            module._buffers.update(own[name]._buffers)
        self.layers = []
        for conv, norm in pairs:
            first, second = own[conv], own[norm]
            assert isinstance(first, nn.Conv2d)
            assert isinstance(second, nn.BatchNorm2d)
            folded = self.network.get_submodule(conv)
            assert isinstance(folded, nn.Conv2d)
            folded.weight = nn.Parameter(torch.empty_like(first.weight), requires_grad=False)
            folded.bias = nn.Parameter(torch.empty(len(first.weight)), requires_grad=False)
            # keeps its hooks, such as the one that fuses two branches
            self.network.get_submodule(norm).__class__ = _Folded
            self.layers.append((first, second, folded))

    @torch.no_grad()
    def updated(self) -> nn.Module:
        """The folded network with the current weights of the original."""
        for conv, norm, folded in self.layers:
            weight, bias, shift = norm.weight, norm.bias, conv.bias
            mean, variance = (norm.get_buffer(name).double() for name in ("running_mean", "running_var"))
            scale = (1.0 if weight is None else weight) * (variance + norm.eps).rsqrt()
            folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
            folded.get_parameter("bias").copy_(
                ((0.0 if shift is None else shift) - mean) * scale + (0.0 if bias is None else bias)
            )
        return self.network


def fold(network: nn.Module, images: Tensor, maps: Tensor | None) -> FoldedNetwork | None:
    """Fold every BatchNorm layer whose input is the output of a convolution; None where that is not possible.

    Args:
        network: on a CPU; called as `network(images, maps)` and left unchanged.
        images: some frames (N, 3, S, S), normalized, on which the folded network is compared with the original.
        maps: (N, 1, S, S), or None.
    """
    outputs: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def remember(_: nn.Module, __: object, output: Tensor, conv: str = name) -> None:
                outputs[id(output)] = (conv, output)  # with the output, so that no other tensor gets its id

            hooks.append(module.register_forward_hook(remember))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:

            def pair(_: nn.Module, inputs: tuple[Tensor, ...], norm: str = name) -> None:
                if id(inputs[0]) in outputs:
                    pairs.append((outputs[id(inputs[0])][0], norm))

            hooks.append(module.register_forward_pre_hook(pair))
    try:
        with evaluating(network), torch.no_grad():
            expected = network(images, maps)
    finally:
        for handle in hooks:
            handle.remove()
    if not pairs or any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1)):
        return None
    folded = FoldedNetwork(network, pairs)
    with torch.no_grad():
        difference = (folded.updated()(images, maps) - expected).abs().max()
    # an output of a convolution that is read elsewhere as well cannot be folded
    return folded if float(difference) <= TOLERANCE * float(expected.abs().max()) else None


class _Folded(nn.BatchNorm2d):
    """What remains of a folded BatchNorm layer: the dropout and activation of timm's layers."""

    def forward(self, values: Tensor) -> Tensor:
        for name in ("drop", "act"):
            if (layer := getattr(self, name, None)) is not None:
                values = layer(values)
        return values
