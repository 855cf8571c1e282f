"""Maps as network inputs: raw maps up-sampled to the frame and normalized."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import NORMALIZATIONS

ABSOLUTE = ("minmax", "p99")
"""Normalizations that take absolute values of the maps of signed methods."""

# a map that varies by less than this share of its greatest absolute value is constant: up-sampling rounds, and stored
# maps have steps of at least 2**-11 near that value
_ROUNDING = 1e-5


def upsample(maps: Tensor, size: int) -> Tensor:
    """Up-sample raw maps to the size of the frame, bilinearly with `align_corners=False`.

    A cell of the map then covers the pixels of the frame from which the source model computed it.

    Args:
        maps: (B, h, w) float32, any range.
        size: S, side of the frame in pixels.

    Returns:
        (B, 1, S, S) float32, within the range of each map.
    """
    return functional.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)


def normalize(maps: Tensor, how: str, signed: bool = False) -> Tensor:
    """Normalize each map of a batch to [0, 1].

    - `minmax`: (x - min) / (max - min).
    - `max`: max(x, 0) / max; negative values, evidence against the class, become 0, of signed methods as well.
    - `p99`: clip((x - min) / (p99 - min), 0, 1), where p99 is the 99th percentile, interpolated linearly: the display
      of gradient maps in PAIR's saliency library (Smilkov et al., "SmoothGrad", 2017). If the 99th
      percentile is the minimum, the maximum replaces it.
    - `none`: the map unchanged.

    Of signed methods (`shards.methods.is_signed`) `minmax` and `p99` normalize |x|: 0 is no evidence, for the class or
    against it, and stays 0; otherwise its place in [0, 1] would depend on the most negative value.

    A map that is constant, all-zero or, for `max`, nowhere positive becomes 0.

    Args:
        maps: (B, 1, S, S) float32, finite, in any memory layout.
        how: one of `NORMALIZATIONS`.
        signed: whether values below 0 speak against the class.

    Returns:
        (B, 1, S, S) float32 in [0, 1], with `none` in any range.

    Raises:
        SalpipeError: there is no such normalization.

    >>> normalize(torch.tensor([[[[-1.0, 0.0], [1.0, 3.0]]]]), "max").flatten().tolist()
    [0.0, 0.0, 0.3333333432674408, 1.0]
    """
    if how not in NORMALIZATIONS:
        raise SalpipeError(f"normalization '{how}' is unknown; use one of {', '.join(NORMALIZATIONS)}")
    if how == "none" or not maps.numel():
        return maps
    if signed and how in ABSOLUTE:
        maps = maps.abs()
    flat = maps.flatten(1)
    high, low = flat.amax(1, keepdim=True), flat.amin(1, keepdim=True)
    # in units of the greatest value no difference overflows, however large the values
    unit = _positive(torch.maximum(high.abs(), low.abs()))
    constant = high / unit - low / unit <= _ROUNDING
    if how == "max":
        # a negative value may overflow, and is clipped at 0 below
        constant, unit, low = constant | (high <= 0), _positive(high), torch.zeros_like(low)
    flat, high, low = flat / unit, high / unit, low / unit
    top = high
    if how == "p99":
        percentile = _percentile(flat, 0.99)
        top = torch.where(percentile - low > _ROUNDING, percentile, high)
    span = torch.where(constant, torch.inf, top - low)
    flat.sub_(low).div_(span)
    return (flat if how == "minmax" else flat.clamp_(0, 1)).view(maps.shape)


def _positive(values: Tensor) -> Tensor:
    """The values, with 1 in place of those that are not positive: divisors."""
    return torch.where(values > 0, values, 1)


def _percentile(flat: Tensor, fraction: float) -> Tensor:
    """Each row's percentile (B, 1), interpolated as `numpy.percentile` does; `torch.quantile` refuses long rows."""
    rank = fraction * (flat.shape[1] - 1)
    below = int(rank)
    # the values from rank `below` on are the fewer, and of these it takes the two smallest
    upper = flat.topk(flat.shape[1] - below, dim=1, sorted=False).values
    first = upper.amin(1, keepdim=True)
    if upper.shape[1] == 1:
        return first
    return torch.lerp(first, upper.kthvalue(2, dim=1, keepdim=True).values, rank - below)
