"""The explained layer: its choice, and the grid of its output over the frame."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import evaluating, is_clean_cut, probe_frames, replaced_output


class NoGridError(SalpipeError):
    """No layer of a network has an output on a grid."""


@dataclass(frozen=True)
class Layer:
    """A layer whose output lies on a grid over the frame.

    Attributes:
        name: the module's dotted name in the network.
        layout: `nchw`, `nhwc` (Swin) or `tokens` (N, prefix + h * w, C).
        channels: C.
        grid: (h, w); cell (i, j) covers the frame's region [i S/h, (i+1) S/h) x [j S/w, (j+1) S/w).
        prefix: tokens before the first grid token (class and register tokens); 0 for the other layouts.
        clean: whether the network's output depends on its input only through this layer, so that the network
            can be cut here.
    """

    name: str
    layout: str
    channels: int
    grid: tuple[int, int]
    prefix: int
    clean: bool

    def to_grid(self, output: Tensor) -> Tensor:
        """The layer's output as (N, C, h, w), without prefix tokens; a view where the layout allows."""
        if self.layout == "nchw":
            return output
        if self.layout == "nhwc":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(tokens), self.channels, *self.grid)

    def from_grid(self, grid: Tensor, output: Tensor) -> Tensor:
        """The inverse of `to_grid`; tokens before the grid are those of `output`."""
        if self.layout == "nchw":
            return grid
        if self.layout == "nhwc":
            return grid.permute(0, 2, 3, 1)
        return torch.cat([output[:, : self.prefix], grid.flatten(2).transpose(1, 2)], 1)


def grid_of(
    output: object, batch: int, prefix: int | None = None, oblong: Sequence[tuple[int, int]] = ()
) -> tuple[str, int, tuple[int, int], int] | None:
    """Layout, channels, (h, w) and prefix of a layer's output, or None if it is not a grid of at least 2 x 2.

    Frames are square, so grids are: that tells NCHW from NHWC, and grid tokens from the tokens before them. Only
    patches that are not square have other grids.

    Args:
        output: the layer's output.
        batch: N.
        prefix: number of prefix tokens, if the network has it as an attribute.
        oblong: grids (h, w) of convolutions that are not square.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != (batch,):
        return None
    for height, width in oblong:
        shape = tuple(output.shape)
        if shape[2:] == (height, width):
            return "nchw", shape[1], (height, width), 0
        if len(shape) == 4 and shape[1:3] == (height, width):
            return "nhwc", shape[3], (height, width), 0
        if len(shape) == 3 and 0 <= shape[1] - height * width <= 8:
            return "tokens", shape[2], (height, width), shape[1] - height * width
    if output.ndim == 4:
        _, a, b, c = output.shape
        if b == c and b > 1:
            return "nchw", a, (b, c), 0
        if a == b and a > 1:
            return "nhwc", c, (a, b), 0
    if output.ndim == 3:
        _, length, channels = output.shape
        # CaiT carries its class token beside the grid tokens until the last layers: then none comes first.
        for before in (length - math.isqrt(length) ** 2,) if prefix is None else (prefix, 0):
            side = math.isqrt(max(length - before, 0))
            if side > 1 and before <= 8 and side * side == length - before:
                return "tokens", channels, (side, side), before
    return None


def grid_layers(module: nn.Module, size: int) -> dict[str, tuple[Layer, Tensor]]:
    """Every layer on a grid, in the order they run, with its output for one probe frame; `clean` is still False.

    Of modules that return the very same tensor (a stage and its last block) the outermost stands for all.
    """
    outputs: dict[int, tuple[str, Tensor]] = {}
    oblong: dict[tuple[int, int], None] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(module, nn.Conv2d) and isinstance(output, Tensor) and output.shape[2] != output.shape[3] > 1:
                oblong[output.shape[2], output.shape[3]] = None
            if isinstance(output, Tensor):
                earlier = outputs.get(id(output))
                if earlier is None or name.count(".") < earlier[0].count("."):
                    outputs[id(output)] = (name, output)

        return hook

    for name, child in module.named_modules():
        # An adaptive pool before the classifier only copies the grid (VGG's 7 x 7 to 7 x 7).
        if name and not isinstance(child, nn.AdaptiveAvgPool2d):
            handles.append(child.register_forward_hook(keep(name)))
    frame = probe_frames(size, 2).requires_grad_()
    # Some networks start with a classifier of zeros (torchvision's ViT), which would hide every gradient.
    generator = torch.Generator().manual_seed(0)
    blank = {
        name: torch.randn(p.shape, generator=generator)
        for name, p in module.named_parameters()
        if p.ndim == 2 and not p.any()
    }
    try:
        with torch.enable_grad():
            logits = torch.func.functional_call(module, blank, (frame * 1.0,))
            if not logits.requires_grad:
                raise SalpipeError(
                    f"{type(module).__name__}: has no gradients; leave torch.no_grad() and detach() out of its forward"
                )
            kept = list(outputs.values())
            target = logits.argmax(1, keepdim=True)
            gradients = torch.autograd.grad(
                logits.gather(1, target).sum(), [t for _, t in kept if t.requires_grad], allow_unused=True
            )
    finally:
        for handle in handles:
            handle.remove()
    layers: dict[str, tuple[Layer, Tensor]] = {}
    prefix = getattr(module, "num_prefix_tokens", None)
    for (name, output), gradient in zip([k for k in kept if k[1].requires_grad], gradients, strict=True):
        on_grid = grid_of(output, 2, prefix, tuple(grid for grid in oblong if min(grid) > 1))
        if on_grid and gradient is not None:
            layout, channels, grid, before = on_grid
            layers[name] = Layer(name, layout, channels, grid, before, clean=False), gradient
    return layers


def choose_layer(module: nn.Module, size: int, name: str | None = None) -> Layer:
    """The layer to explain: `name`, or the last one on a grid that carries the whole signal and a gradient everywhere.

    For a CNN that is the output of the last stage; for a ViT with a class token the input of the last block, since
    the last block's own output has a gradient at the class token only.

    Args:
        module: (N, 3, size, size) to logits (N, classes), on the CPU; left unchanged.
        size: side of the frame in pixels.
        name: dotted module name, or None to choose.

    Raises:
        SalpipeError: where `name` is no layer on a grid, or the network has none.
    """
    with evaluating(module):
        layers = grid_layers(module, size)
        if name is not None:
            return _named_layer(module, size, name, layers)
        for layer, gradient in reversed(layers.values()):
            # Not `> 0`: a damaged network's gradient is NaN, and its maps must show it.
            if layer.to_grid(gradient).abs().amax() != 0 and is_clean_cut(module, layer.name, size):
                return replace(layer, clean=True)
    raise NoGridError(f"{type(module).__name__} has no layer whose output lies on a grid; choose a network with one")


def choose_layers(module: nn.Module, size: int, names: Sequence[str] = ()) -> tuple[Layer, ...]:
    """The layers to explain, in the order in which they run: those of some names, or the one of `choose_layer`.

    Raises:
        SalpipeError: as `choose_layer`.
    """
    if len(names) < 2:
        return (choose_layer(module, size, *names),)
    layers = {name: choose_layer(module, size, name) for name in names}
    order: list[str] = []
    with ExitStack() as hooks, evaluating(module), torch.no_grad():
        for name in layers:
            note = partial(_note, order, name)
            hooks.callback(module.get_submodule(name).register_forward_hook(note).remove)
        module(probe_frames(size, 2))
    # a layer that runs several times is explained at its first output
    return tuple(layers[name] for name in dict.fromkeys(order))


def _note(order: list[str], name: str, *_: object) -> None:
    order.append(name)


def _named_layer(module: nn.Module, size: int, name: str, layers: dict[str, tuple[Layer, Tensor]]) -> Layer:
    if name in layers:
        return replace(layers[name][0], clean=is_clean_cut(module, name, size))
    modules = dict(module.named_modules())
    if name in modules:
        # A container whose last child stands for it, or the child: the same tensor under another name.
        seen: list[object] = []
        with torch.no_grad(), replaced_output(modules[name], seen.append):
            module(probe_frames(size, 2))
        on_grid = grid_of(seen[-1], 2, getattr(module, "num_prefix_tokens", None)) if seen else None
        if on_grid:
            return Layer(name, *on_grid, clean=is_clean_cut(module, name, size))
    close = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
    last = list(layers)[-8:]
    candidates = ", ".join(dict.fromkeys([*close, *last]))
    reason = "has no output on a grid" if name in modules else "is no layer of this network"
    raise SalpipeError(f"--layer {name}: {reason}; candidates: {candidates}")
