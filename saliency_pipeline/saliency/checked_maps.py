"""Maps of methods, which are checked where another package computes them: its errors name the method."""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_pipeline.plug_ins import failures_named
from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.methods.method import Method


def checked_maps(method: Method, ask: Answers, shape: tuple[int, int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Maps of a method, its residuals if it is `complete`, and its standard errors if it is `sampled`.

    Args:
        method: the method.
        ask: the batch.
        shape: height and width of its maps.

    Raises:
        SalpipeError: a method of another package fails, or returns something else; names the method and its line.
    """
    if type(method).__module__.startswith(f"{__package__}."):
        maps = method.maps(ask)
        return maps, method.residuals(ask, maps), method.standard_errors(ask, maps)
    with failures_named(f"method {method.canonical}", "fails", ", or leave the method out"):
        maps, targets = method.maps(ask), ask.targets()
        _require("maps", maps, (len(targets), targets.shape[1] if method.class_specific else 1, *shape))
        # scores that are not finite are the network's, which is reported elsewhere
        if not torch.isfinite(maps[torch.isfinite(ask.logits()).all(1)]).all():
            raise ValueError("it returns values that are not finite")
        residuals = method.residuals(ask, maps) if method.complete else None
        errors = method.standard_errors(ask, maps) if method.sampled else None
        if method.complete:
            _require("residuals", residuals, tuple(maps.shape[:2]))
        if method.sampled:
            _require("standard errors", errors, tuple(maps.shape[:2]))
        return maps, residuals, errors


def _require(name: str, values: object, shape: tuple[int, ...]) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"its {name} are of type {kind}, no tensor of floating-point numbers")
    if values.shape != shape:
        raise ValueError(f"its {name} have shape {tuple(values.shape)} instead of {shape}")
