"""The devices that networks run on, by the names that `--device` takes."""

from __future__ import annotations

import re

import torch

from saliency_pipeline.errors import SalpipeError


def find_device(name: str) -> torch.device:
    """The device of `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        SalpipeError: it is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::([0-9]+))?", name)
    if match is None or (name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count()):
        raise SalpipeError(f"--device {name}: not available here; use --device cpu")
    return torch.device(name)
