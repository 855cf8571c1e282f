"""Precision of training: bf16 where it is measurably faster and the gradient stays the same."""

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

# minimum speed-up, cosine of the gradients and relative error of the loss for bf16
WORTHWHILE = 1.1
COSINE = 0.95
LOSS = 0.03
# seconds after which no further step is measured
LONGEST = 3.0

Prepared = tuple[Tensor, Tensor | None, Tensor]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Context in which convolutions and matrix products run in the precision; weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def disable_dropout(network: nn.Module) -> None:
    """Put the dropout and stochastic-depth layers of a network in evaluation mode."""
    for module in network.modules():
        if "drop" in type(module).__name__.lower() or "stochastic" in type(module).__name__.lower():
            module.eval()


def choose_precision(network: nn.Module, spec: NetworkSpec, batch: Prepared) -> str:
    """Choose the faster of `fp32` and `bf16`; bf16 only if loss and gradient agree with fp32's.

    Only for devices with instructions for bf16, in which some networks are slower all the same. Speeds are measured
    once per kind of machine, network and batch and cached in the user's cache folder; the gradient is compared every
    time. The network is in training mode and left unchanged.
    """
    device = batch[0].device
    key = "; ".join(
        [
            # earlier versions, whose depthwise gradients were slower in bf16, had no "v2"
            f"train v2 {spec.backbone} {spec.arch} {spec.fusion} {spec.fuse_at}",
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
        logger.info("bf16 is not faster: %s steps per second", speeds)
        return "fp32"
    (exact_loss, exact), (loss, rough) = (_gradient(network, batch, name) for name in names)
    cosine = float(functional.cosine_similarity(exact, rough, dim=0))
    off = abs(loss - exact_loss) / max(abs(exact_loss), 1e-6)
    agrees = cosine >= COSINE and off <= LOSS
    logger.info("bf16: gradient's cosine %.4f, loss off by %.4f: %s", cosine, off, "taken" if agrees else "refused")
    return "bf16" if agrees else "fp32"


def _steps_per_second(network: nn.Module, batch: Prepared, precision: str, steps: int = 3) -> float:
    step = _stepper(copy.deepcopy(network), batch, precision)
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
    disable_dropout(twin)  # random masks would differ more than rounding
    loss = _stepper(twin, batch, precision)()
    return loss, torch.cat([p.grad.flatten().float() for p in twin.parameters() if p.grad is not None])


def _stepper(twin: nn.Module, batch: Prepared, precision: str) -> Callable[[], float]:
    """A function that runs one step, forward and backward, on a network."""
    images, maps, labels = batch

    def step() -> float:
        twin.zero_grad()
        with autocast(precision, images.device):
            logits = twin(images, maps)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return step
