"""Metrics of how concentrated maps are, whatever they point at: neither high nor low values are better.

They depend on the number of cells, so that all maps are compared on a grid of 28 x 28: absolute values, enlarged
bilinearly, of larger maps means of areas. The grids of last layers, of 7 to 16 cells, are not coarsened by it; of maps
of pixels it removes the grain that would make any of them look sparse.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.assessment.inquiry import enlarged
from saliency_pipeline.assessment.metrics.metric import Column, Metric, Values

if TYPE_CHECKING:
    from saliency_pipeline.assessment.inquiry import Inquiry

CELLS = 28
"""Side of the common grid."""

Floats = npt.NDArray[np.float64]


def shares(maps: npt.NDArray[np.float32]) -> Floats:
    """Shares (B, 784) of the cells of the common grid in the sum of absolute values, rising; equal for a zero map."""
    sizes = np.abs(maps)
    # so that no sum is infinite
    greatest = sizes.max(axis=(1, 2), keepdims=True)
    sizes /= np.where(greatest > 0, greatest, 1)
    sizes[greatest[:, 0, 0] == 0] = 1
    cells = enlarged(torch.from_numpy(sizes), CELLS).flatten(1).numpy()
    cells.sort(axis=1)
    return np.asarray(cells / cells.sum(axis=1, keepdims=True, dtype=np.float64))


@dataclass(frozen=True)
class _Concentration(Metric):
    """A metric of the sorted shares of the cells; a map of zeros has the value of any other constant map."""

    def values(self, ask: Inquiry) -> Values:
        return {self.columns[0].name: self.formula(ask.once("shares", lambda: shares(ask.maps)))}

    @abstractmethod
    def formula(self, p: Floats) -> Floats:
        """Values (B,) of shares (B, n), rising."""


@dataclass(frozen=True)
class Sparseness(_Concentration):
    """Gini index of the absolute values: sum_k (2 k - n - 1) p_k / n over the rising shares p_k, k = 1 to n.

    0 for a constant map, 1 - 1/n if one cell has everything. Quantus and xplique add 1e-7 to all values and do not
    resize. Chalasani et al. 2020.
    """

    name = "sparseness"
    columns = (Column("sparseness", "Sparseness (Gini)", None),)
    definition = "Gini index of the absolute values on a grid of 28 x 28; 0 for a constant map"
    paper = "Chalasani et al. 2020, arXiv:1810.06583"

    def formula(self, p: Floats) -> Floats:
        n = p.shape[1]
        return np.asarray((p * (2 * np.arange(1, n + 1) - n - 1)).sum(axis=1) / n)


@dataclass(frozen=True)
class Complexity(_Concentration):
    """Entropy of the shares of the absolute values, divided by its maximum: -sum_k p_k ln p_k / ln n.

    1 for a constant map, 0 if one cell has everything. Quantus and xplique do not divide by ln n. Bhatt et al. 2020.
    """

    name = "complexity"
    columns = (Column("complexity", "Complexity (entropy)", None),)
    definition = "entropy of the absolute values on a grid of 28 x 28, divided by ln 784; 1 for a constant map"
    paper = "Bhatt et al. 2020, arXiv:2005.00631"

    def formula(self, p: Floats) -> Floats:
        return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(p.shape[1]))


@dataclass(frozen=True)
class Mass(_Concentration):
    """Share of the cells that hold 90 % of the sum of absolute values, greatest first, the last one in part.

    0.9 for a constant map, 0.9/n if one cell has everything. Unlike a count of the cells above a threshold, as in
    effective complexity, it depends on no scale.
    """

    name = "mass"
    columns = (Column("mass", "Cells with 90 % of the mass", None),)
    definition = "share of the cells of a grid of 28 x 28 that hold 90 % of the sum of absolute values"
    paper = "salpipe"

    def formula(self, p: Floats) -> Floats:
        held = np.cumsum(p[:, ::-1], axis=1)
        whole = (held < 0.9).sum(axis=1)
        row = np.arange(len(p))
        before = np.where(whole > 0, held[row, np.maximum(whole, 1) - 1], 0)
        return np.asarray((whole + (0.9 - before) / p[row, p.shape[1] - 1 - whole]) / p.shape[1])
