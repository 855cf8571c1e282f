"""Deletion, insertion and symmetric relevance gain: the score of the class as pixels are removed in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d, gaussian_filter1d

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Curve, Metric, Values
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.settings import check_settings, setting

Curves = npt.NDArray[np.float64]

FILLS = ("mean", "blur", "black")
"""What removed pixels become; `mean` is the color that normalization maps to 0."""

_STEPS = "Number of steps; 28 remove 1792 pixels per step at 224, as the reference code of RISE does."
_FILL = "What removed pixels become: the mean color of the normalization, the blurred image, or black."


@dataclass(frozen=True)
class _Perturbation(Metric):
    cost: ClassVar[Cost] = Cost.SCORES

    steps: int = setting(28, _STEPS, range=(1, 1000))

    def __post_init__(self) -> None:
        check_settings(self)

    def points(self, curve: str) -> Curves:
        """Share of pixels (steps + 1,), from 0 to 1."""
        if curve not in (own.name for own in self.curves):
            raise KeyError(curve)
        return np.linspace(0.0, 1.0, self.steps + 1)


@dataclass(frozen=True)
class Deletion(_Perturbation):
    """Area under the curve of p_c, the softmax of the explained class, as pixels are removed, the most salient first.

    AUC = 1/n * (p_0 / 2 + p_1 + ... + p_{n-1} + p_n / 2), where p_k is that of the frame in which the floor(k/n * S*S)
    pixels with the greatest values of the enlarged map are filled, the first in rows first among equal ones: p_0 is the
    frame itself, and p_n the fill alone. A constant map thus removes row after row. The mean color is rounded to whole
    gray levels, which changed p of half removed images of ImageNet by 0.003 on average (EfficientNet-Lite0).

    RISE's code and torch-cam fill with 0 after normalization, as here; xplique with 0 before it, which is `fill=black`,
    and scores logits. Petsiuk et al., RISE, BMVC 2018, arXiv:1806.07421, section 4.1.
    """

    name: ClassVar[str] = "deletion"
    columns: ClassVar[tuple[Column, ...]] = (Column("deletion", "Deletion", higher=False),)
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("deletion-curve", "Deletion", "Share of pixels removed", "Softmax of the explained class"),
    )
    definition: ClassVar[str] = (
        "Area under the softmax of the explained class as pixels are removed, the most salient first: "
        "∫ p(removed share) from 0 to 1, by the trapezoidal rule"
    )
    paper: ClassVar[str] = "Petsiuk et al. 2018 (RISE), arXiv:1806.07421"

    fill: str = setting("mean", _FILL, choices=FILLS)

    def values(self, ask: Inquiry) -> Values:
        curve = removal(ask, self.fill, self.steps)
        return {"deletion": area(curve), "deletion-curve": curve}


@dataclass(frozen=True)
class Insertion(_Perturbation):
    """Area under the curve of p_c as pixels are shown on a filled frame, the most salient first.

    As `Deletion`, from the fill alone to the whole frame. The fill is the blurred image, so that no sharp edges of
    shown pixels arise: a Gaussian of 5 pixels at 224 (in proportion at other sizes), folded into a window of 11 by
    reflection and with the mean color outside the frame, as RISE's code has it, which pads the normalized image with 0;
    rounded to whole gray levels. Values with different fills cannot be compared; torch-cam's default is `fill=mean`.

    Petsiuk et al., RISE, BMVC 2018, arXiv:1806.07421, section 4.1.
    """

    name: ClassVar[str] = "insertion"
    columns: ClassVar[tuple[Column, ...]] = (Column("insertion", "Insertion", higher=True),)
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("insertion-curve", "Insertion", "Share of pixels shown", "Softmax of the explained class"),
    )
    definition: ClassVar[str] = (
        "Area under the softmax of the explained class as pixels are shown on the blurred image, the most salient "
        "first: ∫ p(shown share) from 0 to 1, by the trapezoidal rule"
    )
    paper: ClassVar[str] = "Petsiuk et al. 2018 (RISE), arXiv:1806.07421"

    fill: str = setting("blur", _FILL, choices=FILLS)

    def values(self, ask: Inquiry) -> Values:
        curve = addition(ask, self.fill, self.steps)
        return {"insertion": area(curve), "insertion-curve": curve}


@dataclass(frozen=True)
class SymmetricRelevanceGain(_Perturbation):
    """Area between the curves of p_c as the least and as the most salient pixels are removed first.

    SRG = AUC(LeRF) - AUC(MoRF), in [-1, 1]. MoRF, the most relevant first, is `Deletion`; LeRF, the least relevant
    first, ends with the most salient pixels alone, and is thus `Insertion` from the same fill read backwards. An
    artifact of the fill appears in both and cancels, so that SRG hardly depends on the fill; the expected value of a
    random order is 0, and that of a map's negative is the negative.

    Blücher, Vielhaben and Strodthoff, Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks,
    TMLR 2024, arXiv:2401.06654.
    """

    name: ClassVar[str] = "srg"
    columns: ClassVar[tuple[Column, ...]] = (Column("srg", "SRG", higher=True, low=-1.0),)
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("lerf-curve", "Least relevant first", "Share of pixels removed", "Softmax of the explained class"),
    )
    definition: ClassVar[str] = (
        "Symmetric relevance gain: area under the softmax of the explained class as the least salient pixels are "
        "removed first, minus that as the most salient are: AUC(LeRF) - AUC(MoRF)"
    )
    paper: ClassVar[str] = "Blücher et al. 2024, arXiv:2401.06654"

    fill: str = setting("mean", _FILL, choices=FILLS)

    def values(self, ask: Inquiry) -> Values:
        lerf = addition(ask, self.fill, self.steps)[:, ::-1]
        return {"srg": area(lerf) - area(removal(ask, self.fill, self.steps)), "lerf-curve": lerf}


def area(curves: Curves) -> Curves:
    """Area (B,) under curves (B, n + 1) whose points have equal distances, from 0 to 1, by the trapezoidal rule."""
    areas: Curves = (curves.sum(1) - (curves[:, 0] + curves[:, -1]) / 2) / (curves.shape[1] - 1)
    return areas


def removal(ask: Inquiry, fill: str, steps: int) -> Curves:
    """Softmax (B, steps + 1) of the explained class as pixels are removed, the most salient first."""
    return ask.once(("removal", fill, steps), lambda: _curve(ask, fill, steps, False))


def addition(ask: Inquiry, fill: str, steps: int) -> Curves:
    """Softmax (B, steps + 1) of the explained class as pixels are shown on the fill, the most salient first."""
    return ask.once(("addition", fill, steps), lambda: _curve(ask, fill, steps, True))


def filled(batch: ImageBatch, fill: str) -> Pixels:
    """Frames (B, S, S, 3) uint8 in which all pixels are removed; computed once for all methods.

    Args:
        batch: the images.
        fill: one of `FILLS`.
    """
    assert batch.network is not None
    color = batch.network.color if fill == "mean" else (0, 0, 0)
    if fill == "blur":
        return batch.once(("filled", fill), lambda: blurred(batch.frames, batch.network.color))  # type: ignore[union-attr]
    return np.broadcast_to(np.array(color, np.uint8), batch.frames.shape)


def blurred(frames: Pixels, color: tuple[int, int, int]) -> Pixels:
    """Frames (B, S, S, 3) uint8 after RISE's blur; outside them is the color, RGB from 0 to 255."""
    sigma = 5 * frames.shape[1] / 224
    radius = max(1, round(sigma))
    kernel = np.zeros(2 * radius + 1)
    kernel[radius] = 1.0
    # RISE filters a single 1 in a window as small as this, with reflection at its ends: the kernel's sum is 1
    kernel = gaussian_filter1d(kernel, sigma)
    values = frames - np.array(color, np.float32)
    for axis in (1, 2):
        values = correlate1d(values, kernel, axis=axis, mode="constant")
    blurry: Pixels = np.rint(values + np.array(color, np.float32)).clip(0, 255).astype(np.uint8)
    return blurry


def _curve(ask: Inquiry, fill: str, steps: int, show: bool) -> Curves:
    batch, count = ask.batch, ask.batch.size**2
    ends = batch.clean(), batch.once(("filled scores", fill), lambda: batch.scores(filled(batch, fill)))
    curve = np.empty((len(batch), steps + 1))
    curve[:, 0], curve[:, steps] = reversed(ends) if show else ends
    first, last = (filled(batch, fill), batch.frames) if show else (batch.frames, filled(batch, fill))
    frames = np.array(first, order="C")
    # three bytes as one item are moved in a quarter of the time
    changing, final = (each.reshape(len(batch), -1).view("V3") for each in (frames, np.ascontiguousarray(last)))
    rows, bounds = np.arange(len(batch))[:, None], np.arange(steps + 1) * count // steps
    for step in range(1, steps):
        pixels = ask.order[:, bounds[step - 1] : bounds[step]]
        changing[rows, pixels] = final[rows, pixels]
        curve[:, step] = batch.scores(frames)
    return curve
