"""Which maps mark a place at all, and how much of a map's mass lies in a rectangle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""

_ROUNDING = 1e-5
"""Maps that vary by less than this share of their greatest absolute value are constant: up-sampling rounds."""


def marks_place(maps: Tensor) -> Tensor:
    """Return whether each map (B, 1, S, S) marks a place, bool (B,).

    Maps that are constant, nowhere positive or not finite do not.

    >>> import torch
    >>> marks_place(torch.tensor([[[[1.0, 1.0]]], [[[0.0, 1.0]]], [[[float("nan"), 1.0]]]])).tolist()
    [False, True, False]
    """
    flat = maps.flatten(1)
    # aminmax takes twenty times as long
    low, high = flat.amin(1), flat.amax(1)
    return (high - low).isfinite() & (high > 0) & (high - low > _ROUNDING * high.maximum(-low))


def mass_share(values: Tensor, box: Box) -> float:
    """The share of a map's mass, the sum of its positive values, that lies in a rectangle.

    >>> import torch
    >>> mass_share(torch.tensor([[1.0, 3.0], [0.0, -1.0]]), (0, 0, 2, 1))
    0.25
    """
    top, left, height, width = box
    positive = values.clamp_min(0)
    return float(positive[top : top + height, left : left + width].sum() / positive.sum())
