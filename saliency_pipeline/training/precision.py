"""Chooses the precision of training: bf16 where it is measured to be faster and the gradient stays the same."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn import functional

from saliency_pipeline.devices import capabilities
from saliency_pipeline.models.trained.two_branch import NetworkSpec
from saliency_pipeline.speeds import remembered_speeds

logger = logging.getLogger(__name__)

# bf16 has to be worth it, and its gradient has to point where fp32's does.
WORTHWHILE = 1.1
COSINE = 0.95
LOSS = 0.03
# Seconds after which no further step is measured.
LONGEST = 3.0

Prepared = tuple[Tensor, Tensor | None, Tensor]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Within the block convolutions and products run in bf16 where that is the precision; weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def choose_precision(network: nn.Module, spec: NetworkSpec, batch: Prepared) -> str:
    """`fp32` or `bf16`, whichever trains faster here; bf16 only while loss and gradient agree with fp32's.

    Only for a device that has instructions for bf16; some networks are slower in it all the same. Speeds are measured
    once per kind of machine, network and batch and kept in the user's cache folder; the gradient is looked at every
    time.

    Args:
        network: in training mode; left as found.
        spec: what it is.
        batch: images, maps and labels on the network's device.
    """
    device = batch[0].device
    key = "; ".join(
        [
            f"train {spec.backbone} {spec.arch} {spec.fusion} {spec.fuse_at}",
            f"batch {len(batch[0])} of {batch[0].shape[-1]}",
            f"{sum(p.requires_grad for p in network.parameters())} trained tensors",
            capabilities(device),
            f"{torch.get_num_threads()} threads",
            *(f"{name} {version(name)}" for name in ("torch", "timm")),
        ]
    )
    names = ("fp32", "bf16")
    speeds = remembered_speeds(key, names, lambda: [_steps_per_second(network, batch, name) for name in names])
    if speeds["bf16"] < WORTHWHILE * speeds["fp32"]:
        logger.info("bf16 is not worth it: %s steps a second", speeds)
        return "fp32"
    (exact_loss, exact), (loss, rough) = (_gradient(network, batch, name) for name in names)
    cosine = float(functional.cosine_similarity(exact, rough, dim=0))
    off = abs(loss - exact_loss) / max(abs(exact_loss), 1e-6)
    faithful = cosine >= COSINE and off <= LOSS
    logger.info("bf16: gradient's cosine %.4f, loss off by %.4f: %s", cosine, off, "taken" if faithful else "refused")
    return "bf16" if faithful else "fp32"


def _steps_per_second(network: nn.Module, batch: Prepared, precision: str, steps: int = 3) -> float:
    step = _stepper(network, batch, precision)
    step()
    best, begun = float("inf"), time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begun > LONGEST:
            break
    return 1 / best


def _gradient(network: nn.Module, batch: Prepared, precision: str) -> tuple[float, Tensor]:
    """Loss and the gradient of every trained parameter, as one vector."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if "drop" in type(module).__name__.lower() or "stochastic" in type(module).__name__.lower():
            module.eval()  # what is drawn would differ more than what is rounded
    loss = _stepper(twin, batch, precision, copied=True)()
    return loss, torch.cat([p.grad.flatten().float() for p in twin.parameters() if p.grad is not None])


def _stepper(network: nn.Module, batch: Prepared, precision: str, *, copied: bool = False) -> Callable[[], float]:
    """A function that runs one step, forward and backward, on a copy of the network."""
    twin = network if copied else copy.deepcopy(network)
    images, maps, labels = batch

    def step() -> float:
        twin.zero_grad()
        with autocast(precision, images.device):
            logits = twin(images, maps)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return step
