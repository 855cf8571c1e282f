"""The stem and the stages of a backbone: where the saliency branch joins, and its geometry."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import (
    Step,
    evaluating,
    is_clean_cut,
    is_norm,
    layers_in_order,
    probe_frames,
    replaced_output,
)

STEM = "stem"

# containers of stems of more than one convolution, as in ResNet-D
_CONTAINERS = ("conv1", "stem")


@dataclass(frozen=True)
class Stem:
    """The first layers of a network, before the first pooling or block.

    Attributes:
        layers: dotted names in the order in which they run: one or more convolutions, norms, activations.
        end: the module whose output is the stem's; a layer, or the container that ends with it.
        channels: C of that output, (N, C, H/2, W/2) for most networks.
    """

    layers: tuple[str, ...]
    end: str
    channels: int


@dataclass(frozen=True)
class Junction:
    """A module after which branches may be fused: its output (N, channels, h, w) carries the whole signal."""

    name: str
    channels: int


def find_stem(name: str, module: nn.Module, size: int) -> Stem:
    """Recognize a network's stem by running it once.

    The stem is the first convolution with the norm and activation that follow it; where that convolution is in a
    container called `stem` or `conv1` with more of them (ResNet-D), all of these. ResNet: conv1-bn1-act1,
    before the pooling. EfficientNet: conv_stem-bn1, before the blocks. ConvNeXt: the patch convolution and its norm.

    Args:
        name: the network's name, for the message.
        module: (N, 3, size, size) to logits; not changed.
        size: side of the frame in pixels.

    Raises:
        SalpipeError: the network does not begin with a convolution of the RGB image through which all of it sees.
    """
    steps = layers_in_order(module, size)
    first = steps[0] if steps else None
    if first is None or not isinstance(first.module, nn.Conv2d) or first.module.in_channels != 3:
        raise _no_stem(name)
    holder = _container(first.name)
    chain = [first]
    for step in steps[1:]:
        last = chain[-1].output
        inside = holder is not None and step.name.startswith(f"{holder}.") and isinstance(step.module, nn.Conv2d)
        if not (inside or is_norm(step.module) or _is_activation(step, last)):
            break
        chain.append(step)
    while len(chain) > 1 and (isinstance(chain[-1].module, nn.Identity) or not _is_stem(module, chain, size)):
        chain.pop()
    if not _is_stem(module, chain, size):
        raise _no_stem(name)
    layers = tuple(step.name for step in chain)
    return Stem(layers, _outermost(layers, [step.name for step in steps]), chain[-1].output.shape[1])


def _no_stem(name: str) -> SalpipeError:
    return SalpipeError(
        f"{name}: does not begin with a convolution that a saliency branch could mirror; use a convolutional backbone "
        "such as resnet50, or --arch baseline"
    )


def _container(first: str) -> str | None:
    """The outermost container of the first convolution that has the name of a stem."""
    parts = first.split(".")
    places = [i for i, part in enumerate(parts[:-1]) if part in _CONTAINERS]
    return ".".join(parts[: places[0] + 1]) if places else None


def _is_activation(step: Step, before: Tensor) -> bool:
    """Return whether a layer keeps shapes and has at most a slope: activations, dropout, identities, no pooling."""
    learned = sum(p.numel() for p in step.module.parameters())
    pools = "pool" in type(step.module).__name__.lower() or "blur" in type(step.module).__name__.lower()
    return step.output.shape == before.shape and learned <= before.shape[1] and not pools


def _is_stem(module: nn.Module, chain: list[Step], size: int) -> bool:
    """Return whether the layers are a chain, and later layers see the image only through the last of them."""
    with evaluating(module), torch.no_grad():
        output = probe_frames(size, 1)
        try:
            for step in chain:
                output = step.module(output)
        except RuntimeError:
            return False
        if output.ndim != 4 or not torch.equal(output, chain[-1].output):
            return False
        return is_clean_cut(module, chain[-1].name, size)


def _outermost(layers: tuple[str, ...], order: list[str]) -> str:
    """The largest container that ends with the stem and contains nothing else, or the last layer."""
    end = layers[-1]
    while "." in end:
        above = end.rpartition(".")[0]
        if any(name.startswith(f"{above}.") and name not in layers for name in order):
            break
        end = above
    return end


def find_junction(name: str, module: nn.Module, size: int, where: str) -> Junction:
    """The module after which branches are fused.

    Args:
        name: the network's name, for the message.
        module: (N, 3, size, size) to logits; not changed.
        size: side of the frame in pixels.
        where: `stem`, or the dotted name of a module: a stage such as `layer2` or `blocks.3`.

    Raises:
        SalpipeError: no such module, or not one whose output is a grid (N, C, h, w) through which the whole signal
            goes.
    """
    if where == STEM:
        stem = find_stem(name, module, size)
        return Junction(stem.end, stem.channels)
    modules = dict(module.named_modules())
    if where not in modules or not where:
        near = difflib.get_close_matches(where, stages(module), n=3, cutoff=0.3) or stages(module)[:6]
        raise SalpipeError(f"--fuse-at {where}: no module of {name}; there are stem, {', '.join(near)}")
    seen: list[Tensor] = []
    with evaluating(module), torch.no_grad(), replaced_output(modules[where], seen.append):
        module(probe_frames(size, 1))
    with evaluating(module):
        whole = len(seen) == 1 and isinstance(seen[0], Tensor) and seen[0].ndim == 4
        if not whole or seen[0].shape[2] != seen[0].shape[3] or not is_clean_cut(module, where, size):
            raise SalpipeError(
                f"--fuse-at {where}: its output is no grid that carries the whole signal of {name}; use stem or a "
                f"stage such as {', '.join(stages(module)[:4])}"
            )
    return Junction(where, seen[0].shape[1])


def stages(module: nn.Module) -> list[str]:
    """Names of likely stages, in order: the network's children, and the children of sequences of stages."""
    names = []
    for name, child in module.named_children():
        names.append(name)
        if isinstance(child, nn.Sequential) and name in ("blocks", "stages", "features"):
            names += [f"{name}.{part}" for part, _ in child.named_children()]
    return names


def set_input_channels(conv: nn.Conv2d, channels: int) -> None:
    """Set the number of input channels of a convolution; its weights are initialized again."""
    conv.in_channels = channels
    conv.weight = nn.Parameter(conv.weight.new_empty(conv.out_channels, channels, *conv.kernel_size))
    conv.reset_parameters()


def copy_geometry(module: nn.Module, stem: Stem, channels: int) -> nn.Sequential:
    """A copy of the stem's layers, for `channels` input channels instead of 3 and without the last activation.

    Weights are copies, which `initialize` replaces; the first convolution's are new.
    """
    layers = [copy.deepcopy(module.get_submodule(name)) for name in stem.layers]
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    set_input_channels(first, channels)
    while len(layers) > 1 and not isinstance(layers[-1], nn.Conv2d) and not is_norm(layers[-1]):
        layers.pop()
    if isinstance(getattr(layers[-1], "act", None), nn.Module):
        layers[-1].act = nn.Identity()  # timm's norms carry their activation
    return nn.Sequential(*layers)
