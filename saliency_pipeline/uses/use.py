"""`Use`: what every use of maps is: where it acts, its formula, parameters and paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from saliency_pipeline.settings import check_settings, settings_of, types_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Seeds = Sequence[Sequence[int]]
"""For each image the non-negative numbers that its random choices depend on: seed, epoch, position."""

SHOWN_WHOLE, ERASED, MIXED, PARTNERS = range(1, 5)
"""Purposes of random numbers; see `random_numbers`."""


@dataclass(frozen=True)
class Limits:
    """Restriction of the random crops of a batch.

    Attributes:
        smallest: least area of a crop, relative to the frame's.
        allowed: whether the image at an index may be cropped to a rectangle: top, left, height and width in pixels.
    """

    smallest: float
    allowed: Callable[[int, tuple[int, int, int, int]], bool]


@dataclass(frozen=True)
class Use:
    """A use of maps with its parameters. Subclasses are frozen dataclasses; each parameter is a `setting`.

    A use acts on pairs (`change`, `regions`), on augmentation (`limits`, `finish`) or on batches (`mix`); what it
    does not override leaves training as it is without maps.

    Attributes:
        name: name on the command line.
        formula: the formula in words or symbols.
        paper: where it comes from.
        at_test: whether maps are needed for new images as well, or in training alone.
        arch: `--arch` of the network that it trains.
        maps_in_batches: whether the network or the loss reads the maps of a batch, so that they go to the device.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    at_test: ClassVar[bool]
    arch: ClassVar[str] = "baseline"
    maps_in_batches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)
        for name, (option, _) in settings_of(self).items():
            # margin=1 and margin=1.0 are one use
            if types_of(option)[0] == "float" and isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def reads_maps(self) -> bool:
        """True if training reads maps; controls of a use may read none."""
        return True

    @property
    def views(self) -> int:
        """Number of views of each image whose logits are averaged at test: the changed image, then the whole one."""
        return 1

    @cached_property
    def canonical(self) -> str:
        """Its name with all parameters, as runs store it: `zoom:margin=0.1,mass=0.9,…`; None is left out."""
        values = ((name, getattr(self, name)) for name in sorted(settings_of(self)))
        items = ",".join(f"{name}={_text(value)}" for name, value in values if value is not None)
        return f"{self.name}:{items}" if items else self.name

    def change(self, images: Tensor, maps: Tensor, mean: Sequence[float]) -> Tensor:
        """The images (B, 3, F, F) uint8 that the network sees, before they are cropped.

        Args:
            images: (B, 3, F, F) uint8 RGB as stored.
            maps: (B, 1, F, F) float32, normalized.
            mean: mean color in [0, 1] of the network's normalization.
        """
        return images

    def regions(self, maps: Tensor, seeds: Seeds | None) -> Tensor | None:
        """The part of each frame that replaces the whole: top, left, height, width (B, 4) int64; None for the whole.

        Args:
            maps: (B, 1, F, F) float32, normalized.
            seeds: of each image in training; None for validation and new images.
        """
        return None

    def limits(self, maps: Tensor) -> Limits | None:
        """Restriction of the random crops of training images, from their maps (B, 1, F, F); None for none."""
        return None

    def finish(self, images: Tensor, maps: Tensor | None, mean: Sequence[float], seeds: Seeds) -> Tensor:
        """The training images (B, 3, T, T) uint8 after augmentation.

        Args:
            images: (B, 3, T, T) uint8 RGB, augmented.
            maps: (B, 1, T, T) float32, augmented alike; None if training reads none.
            mean: as of `change`.
            seeds: of each image.
        """
        return images

    def mix(self, images: Tensor, maps: Tensor | None, seeds: Seeds) -> tuple[Tensor, Tensor, Tensor] | None:
        """Training images that are mixed with others of their batch; None if none are.

        Args:
            images: as of `finish`.
            maps: as of `finish`.
            seeds: as of `finish`.

        Returns:
            Images (B, 3, T, T) uint8, indices of the partners int64 (B,), and the share of the own label of each image
            float32 (B,) in [0, 1].
        """
        return None


def random_numbers(seed: Sequence[int], purpose: int) -> np.random.Generator:
    """A generator that depends on the numbers of an image, or of several, and on the purpose alone."""
    import numpy as np

    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*map(int, seed), purpose])))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
