"""Preprocessing of a network: frame size, normalization and interpolation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.registry import square_size, timm_config
from saliency_pipeline.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = '{"input_size": (3, 224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}'
"""Preprocessing as a user writes it."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing that a network expects.

    Attributes:
        size: Side of the square RGB input in pixels.
        mean: Subtracted from each channel of an image in [0, 1].
        std: Divides each channel after that.
        interpolation: `bilinear` or `bicubic`, for resizing to `size`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str

    def scale_and_shift(self, white: float) -> tuple[Tensor, Tensor]:
        """Normalization as one multiplication and one addition: `value * scale + shift`.

        Args:
            white: largest value of a channel, 255 for bytes.

        Returns:
            Scale and shift, float32 (3,) each.
        """
        import torch

        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        return (1 / (white * std)).float(), (-mean / std).float()


def preprocessing_of(name: str, library: str, bare: str) -> Preprocessing:
    """The preprocessing of a network of `registry.find_source`, from its library's configuration.

    Raises:
        SalpipeError: It does not take square RGB images.
    """
    if library == "torchvision":
        from torchvision import models

        preset = models.get_model_weights(bare).DEFAULT.transforms()
        size, mean, std, interpolation = preset.crop_size[0], preset.mean, preset.std, preset.interpolation.value
    else:
        config = timm_config(bare)
        size, mean, std, interpolation = square_size(config.input_size), config.mean, config.std, config.interpolation
        if size == 0:
            raise SalpipeError(f"{name}: takes {config.input_size} inputs; use a model of square RGB images")
    # timm's other values, 'random' and 'lanczos', have no antialiased twin in every backend
    interpolation = "bilinear" if interpolation == "bilinear" else "bicubic"
    (r, g, b), (sr, sg, sb) = (tuple(map(float, values)) for values in (mean, std))
    return Preprocessing(size, (r, g, b), (sr, sg, sb), interpolation)


def preprocessing_from(name: str, settings: object) -> Preprocessing:
    """The preprocessing that a user gives for a network.

    Args:
        name: the network's name in messages.
        settings: a `Preprocessing`; a mapping with timm's keys `input_size` (3, H, W), or `size`, `mean`, `std` and
            `interpolation` (default: bilinear), of which others, such as `crop_pct`, are ignored; timm's
            `PretrainedCfg`; or the transforms of torchvision's weights.

    Raises:
        SalpipeError: a value is missing or impossible.
    """
    values: Mapping[str, Any] = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
    try:
        size: Any = values["crop_size"][0] if "crop_size" in values else values.get("size", values.get("input_size"))
        if not isinstance(size, int):
            size = square_size(tuple(size)) if isinstance(size, tuple | list) and len(size) == 3 else 0
        if size < 1:
            raise ValueError(f"input size {values.get('input_size')!r:.40} is not that of a square RGB image")
        interpolation = values.get("interpolation", "bilinear")
        interpolation = getattr(interpolation, "value", interpolation)
        # timm's other values, as in `preprocessing_of`
        interpolation = "bicubic" if interpolation in ("random", "lanczos") else interpolation
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {interpolation!r:.40} is neither bilinear nor bicubic")
        mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
        if not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean {mean} is not within 0 and 1, the range of pixels")
        return preprocessing_from_json({"size": size, "mean": mean, "std": std, "interpolation": interpolation})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise SalpipeError(f"{name}: unusable preprocessing: {problem}; give, for example, {EXAMPLE}") from error


def preprocessing_from_json(data: dict[str, Any]) -> Preprocessing:
    """The preprocessing stored in a JSON document.

    Raises:
        KeyError, TypeError, ValueError: the attributes are incomplete, of other types or impossible.
    """
    mean, std = (tuple(map(float, data[name])) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError("its normalization is impossible")
    if data["interpolation"] not in ("bilinear", "bicubic") or type(data["size"]) is not int:
        raise ValueError("its preprocessing is impossible")
    return Preprocessing(data["size"], mean, std, data["interpolation"])
