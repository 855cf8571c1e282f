"""`Use`: what every use of maps is: where it acts, its formula, parameters and paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from saliency_pipeline.settings import check_settings, settings_of, types_of

if TYPE_CHECKING:
    from torch import Tensor

Seeds = Sequence[Sequence[int]]
"""For each image the non-negative numbers that its random choices depend on: seed, epoch, position."""


@dataclass(frozen=True)
class Use:
    """A use of maps with its parameters. Subclasses are frozen dataclasses; each parameter is a `setting`.

    A use acts on pairs (`changed`, `regions`), on augmentation (`protects`), on batches (`mixes`) or on the loss
    (`supervises`); what it does not override leaves training as it is without maps.

    Attributes:
        name: name on the command line.
        formula: the formula in words or symbols.
        paper: where it comes from.
        at_test: whether maps are needed for new images as well, or in training alone.
        arch: `--arch` of the network that it trains.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    at_test: ClassVar[bool]
    arch: ClassVar[str] = "baseline"

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

    def changed(self, images: Tensor, maps: Tensor, mean: Sequence[float]) -> Tensor:
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


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
