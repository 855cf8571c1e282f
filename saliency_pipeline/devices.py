"""Devices: resolve `--device`, detect bf16 support, name the hardware."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.workers import usable_cores


def find_device(name: str) -> torch.device:
    """Return the device for `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        OptionError: the name is none of these.
        SalpipeError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (match := re.fullmatch(r"cpu|cuda(?::([0-9]{1,9}))?", name)) is None:
        raise OptionError(f"--device {name}: not available here; use --device cpu")
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise SalpipeError(f"--device {name}: not available here; use --device cpu")
    return torch.device(name)


@contextmanager
def threads_within_cores() -> Iterator[None]:
    """Limit PyTorch's threads to the usable cores, as PyTorch ignores a container's quota; also a decorator."""
    with limited_threads(min(torch.get_num_threads(), usable_cores())):
        yield


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch's threads, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def computes_bf16(device: torch.device | str) -> bool:
    """Return whether a device has bfloat16 instructions; emulated bfloat16 is several times slower than float32.

    On a CPU, instructions count that oneDNN, whose kernels PyTorch runs, may use; `ONEDNN_MAX_CPU_ISA=AVX2` disables
    them.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    usable = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not usable or platform.machine() not in ("x86_64", "AMD64"):
        return usable
    # oneDNN reports support on every processor with AVX-512, also where it emulates
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def instructions() -> str:
    """Return the CPU instruction set that PyTorch uses, with bfloat16 support: "AVX2" or "AVX512 bf16"."""
    bf16 = " bf16" if computes_bf16("cpu") else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{bf16}"


def capabilities(device: torch.device | str) -> str:
    """Return what determines a device's speed: "AVX2; 2 cores", or the name of a GPU.

    The processor's name is left out: virtual machines of one maker all have the same one, whatever they can do.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{instructions()}; {usable_cores()} cores"


def device_name(device: torch.device | str) -> str:
    """Return the name of a GPU, or the processor's name and capabilities."""
    description = capabilities(device)
    return description if torch.device(device).type == "cuda" else f"{_processor()}; {description}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
