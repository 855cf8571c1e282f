"""Maps that depend on the image alone: no network, no class. They are floors for metrics and controls for training."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Grids, Method
from saliency_pipeline.settings import SEEDS, setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

SPECTRUM = 64
"""Side in pixels of the image whose spectrum is taken."""


@dataclass(frozen=True)
class _ImageMethod(Method):
    """A method that reads each frame by itself."""

    needs = Need.NOTHING
    class_specific = False

    @abstractmethod
    def formula(self, frame: np.ndarray) -> np.ndarray:
        """Map (h, w) of a frame (S, S, 3) uint8 RGB."""

    def maps(self, ask: Answers) -> Tensor:
        return _stacked([self.formula(frame) for frame in ask.frames])


@dataclass(frozen=True)
class SpectralResidual(_ImageMethod):
    """Spectral residual: g * |F^-1 exp(L - h * L + i P)|^2, (N, 1, 64, 64), >= 0.

    L and P are log amplitude and phase of the Fourier transform F of the gray frame at 64 x 64 pixels, h the 3 x 3 mean
    and g a Gaussian of 2.5 pixels with zeros beyond the border, as in the authors' MATLAB program; OpenCV smooths
    before it squares. A frame of a single gray has a map of zeros. Hou and Zhang, CVPR 2007.
    """

    name = "spectral-residual"
    convention = "squared inverse transform of exp(log amplitude minus its 3x3 mean + i phase), 64x64, Gaussian of 2.5"
    paper = "Hou and Zhang, CVPR 2007, doi:10.1109/CVPR.2007.383267"

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return SPECTRUM, SPECTRUM

    def formula(self, frame: np.ndarray) -> np.ndarray:
        import cv2

        image = cv2.resize(_gray(frame), (SPECTRUM, SPECTRUM), interpolation=cv2.INTER_AREA)
        if np.ptp(image) == 0:
            return np.zeros_like(image)
        spectrum = np.fft.fft2(image)
        amplitude = np.log(np.maximum(np.abs(spectrum), 1e-9))
        residual = amplitude - cv2.blur(amplitude, (3, 3), borderType=cv2.BORDER_REPLICATE)
        power = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
        return cv2.GaussianBlur(power, (11, 11), 2.5, borderType=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Edges(_ImageMethod):
    """Edges: |gx| / 2 + |gy| / 2 by Sobel's 3 x 3 filters on the gray frame in [0, 1], (N, 1, S, S), >= 0.

    The border is mirrored. pytorch-grad-cam has the same under the name of a Sobel CAM.
    """

    name = "edges"
    convention = "|gx|/2 + |gy|/2 by Sobel's 3x3 filters on the gray frame in [0, 1]"
    paper = "Sobel and Feldman, 1968"

    def formula(self, frame: np.ndarray) -> np.ndarray:
        import cv2

        image = _gray(frame)
        horizontal, vertical = (cv2.Sobel(image, cv2.CV_64F, *order, ksize=3) for order in ((1, 0), (0, 1)))
        return np.abs(horizontal) / 2 + np.abs(vertical) / 2


@dataclass(frozen=True)
class CenterPrior(_ImageMethod):
    """Center prior: exp(-r^2 / (2 sigma^2)), r the distance from the center, (N, 1, cells, cells), in (0, 1].

    The same for all frames. People look at the center of photographs, and photographers put things there: Tatler,
    Journal of Vision 7(14):4, 2007.
    """

    name = "center-prior"
    convention = "exp(-r^2 / (2 sigma^2)), r the distance from the center and sigma relative to the side"
    paper = "Tatler, Journal of Vision 7(14):4, 2007"

    sigma: float = setting(0.25, "Standard deviation, relative to the side of the frame.", range=(0.01, 100.0))
    cells: int = setting(28, "Cells per side of the map.", range=(1, 4096))

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return self.cells, self.cells

    def formula(self, frame: np.ndarray) -> np.ndarray:
        square = ((np.arange(self.cells) + 0.5) / self.cells - 0.5) ** 2
        return np.exp(-(square[:, None] + square) / (2 * self.sigma**2))


@dataclass(frozen=True)
class Random(Method):
    """Random numbers, uniform in [0, 1), a grid (N, 1, cells, cells) that depends on the image's key alone.

    Enlarged to the frame, maps are as smooth as those of a layer with that grid. A floor for metrics.
    """

    name = "random"
    needs = Need.NOTHING
    convention = "uniform in [0, 1), independent of image and network"
    paper = "control without a paper"
    class_specific = False

    cells: int = setting(7, "Cells per side of the map.", range=(1, 4096))
    seed: int = setting(0, "Random seed.", range=SEEDS)

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return self.cells, self.cells

    def maps(self, ask: Answers) -> Tensor:
        return _stacked([rng.random((self.cells, self.cells)) for rng in ask.random(self.name, self.seed)])


def _gray(frame: np.ndarray) -> np.ndarray:
    """Luma (S, S) float64 in [0, 1] of a frame (S, S, 3) uint8 RGB (ITU-R BT.601)."""
    return frame @ (np.array([0.299, 0.587, 0.114]) / 255)


def _stacked(maps: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(maps).astype(np.float32))[:, None]
