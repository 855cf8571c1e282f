"""Inspect a network by running it once on noise; flags, hooks and parameters are restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST = 1024


@contextmanager
def replaced_output(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block `module` returns `change(output)`, or its own output if that is None."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the block the network is in eval mode and frozen; afterwards the state of every module is restored."""
    training = [(m, m.training) for m in module.modules()]
    learning = [p for p in module.parameters() if p.requires_grad]
    try:
        module.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, mode in training:
            part.training = mode
        for parameter in learning:
            parameter.requires_grad_()


def probe_size(size: int) -> int:
    """Side of the frames with which a network for frames of `size` is probed: at most 1024 pixels, with the same
    remainder modulo every power of two up to 512.

    >>> probe_size(224), probe_size(4096 + 32)
    (224, 544)
    """
    return size if size <= _LARGEST else 512 + size % 512


def probe_frames(size: int, count: int) -> Tensor:
    """Reproducible noise shaped like normalized frames, (count, 3, size, size) float32."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def is_clean_cut(module: nn.Module, name: str, size: int) -> bool:
    """Return whether the logits depend on the input only through layer `name`: cut there, no gradient passes."""
    frame = probe_frames(size, 1).requires_grad_()
    with torch.enable_grad(), replaced_output(module.get_submodule(name), lambda output: output.detach()):
        return not module(frame * 1.0).requires_grad


@dataclass(frozen=True)
class Step:
    """One layer as it ran: its dotted name, the module, and what it returned."""

    name: str
    module: nn.Module
    output: Tensor


def layers_in_order(module: nn.Module, size: int) -> list[Step]:
    """The layers of a network in the order in which they run on one probe frame.

    A layer is a module without submodules, or a norm with the activation it contains. One that runs twice is listed
    twice; modules that are never called (fused or functional ones) are not listed.
    """
    steps: list[Step] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                steps.append(Step(name, part, output.clone()))  # the next activation may work in place

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in _layers(module, "")]
    try:
        with evaluating(module), torch.no_grad():
            module(probe_frames(size, 1))
    finally:
        for handle in handles:
            handle.remove()
    return steps


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm: its class is named so, as is customary, and its parameters are per channel."""
    return "norm" in type(module).__name__.lower() and all(p.ndim <= 1 for p in module.parameters())


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    children = list(module.named_children())
    if name and (not children or is_norm(module)):
        yield name, module
        return
    for child, part in children:
        yield from _layers(part, f"{name}.{child}" if name else child)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Within the block random numbers are the same every time; the caller's random state is restored."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would seed the accelerators as well and change the caller's state
        torch.default_generator.manual_seed(0)
        yield
