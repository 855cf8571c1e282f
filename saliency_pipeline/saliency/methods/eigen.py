"""Eigen-CAM and Eigen-grad-CAM: the cells of a layer, projected onto their first principal component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import LayerMethod

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

_SQUARINGS = 13


def principal_projection(values: Tensor) -> Tensor:
    """Projection of each cell's values, minus their mean over cells, onto their first principal component.

    The component comes from powers of the Gram matrix G of the n cells (or channels, where these are fewer), in half
    the time of `torch.linalg.eigh` for grids of 7 x 7. Its variance is at least n^(-1/8192) times the largest possible
    one, but for rounding: 0.9995 for 49 cells. So it differs from the first component only where the second has nearly
    the same variance.

    Args:
        values: (N, C, h, w) for N images.

    Returns:
        (N, h, w), with the sign that makes the largest absolute value positive; 0 where all cells are equal.
    """
    cells = values.flatten(2)
    # minus the first cell, so that equal cells become exactly 0, which their mean in float32 does not achieve
    cells = cells - cells[:, :, :1]
    cells -= cells.mean(2, keepdim=True)
    if cells.shape[2] <= cells.shape[1]:
        gram = torch.bmm(cells.transpose(1, 2), cells)
        vector = _first_eigenvector(gram)
        # its Rayleigh quotient is the square of the singular value
        projection = vector * (torch.bmm(vector, gram) * vector).sum(2, keepdim=True).relu().sqrt()
    else:
        projection = torch.bmm(_first_eigenvector(torch.bmm(cells, cells.transpose(1, 2))), cells)
    upright = projection.amax(2, keepdim=True) >= -projection.amin(2, keepdim=True)
    return torch.where(upright, projection, -projection).view(len(values), *values.shape[2:])


def _first_eigenvector(gram: Tensor) -> Tensor:
    """Eigenvectors (N, 1, n) of length 1 to the largest eigenvalues of positive semidefinite (N, n, n); 0 of zeros."""
    for _ in range(_SQUARINGS):
        # divided by the trace, the largest eigenvalue is between 1 / n and 1
        trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        gram = gram / torch.where(trace == 0, 1.0, trace)
        gram = torch.bmm(gram, gram)
    # all rows tend to the eigenvector; that with the largest diagonal element is the farthest from 0
    largest = gram.diagonal(dim1=1, dim2=2).argmax(1)
    row = gram[torch.arange(len(gram), device=gram.device), largest][:, None]
    length = torch.linalg.vector_norm(row, dim=2, keepdim=True)
    return row / torch.where(length == 0, 1.0, length)


@dataclass(frozen=True)
class EigenCam(LayerMethod):
    """Eigen-CAM: first principal component of the activations, one map (N, h, w) >= 0 for all classes.

    Projection of the centered activations of each cell onto their first right singular vector (Muhammad and Yeasin,
    arXiv 2008.00299, without centering; centered as in pytorch-grad-cam). A singular vector has no sign: ours makes the
    largest absolute value positive.
    """

    name = "eigencam"
    needs = Need.ACTIVATIONS
    convention = (
        "ReLU of the projection of A, centered over cells, onto its first principal component, flipped where |min| > "
        "|max|; the same for all classes"
    )
    paper = "arXiv:2008.00299"
    class_specific = False

    def maps(self, ask: Answers) -> Tensor:
        return principal_projection(ask.activations(self.layer)).relu_()[:, None]

    @property
    def cost(self) -> float:
        return 0.03


@dataclass(frozen=True)
class EigenGradCam(LayerMethod):
    """Eigen-grad-CAM: first principal component of dy/dA A, maps (N, h, w) >= 0 (pytorch-grad-cam, no paper)."""

    name = "eigengradcam"
    convention = (
        "ReLU of the projection of dy/dA A, centered over cells, onto its first principal component, flipped where "
        "|min| > |max|"
    )
    paper = "pytorch-grad-cam (software)"

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return principal_projection(gradients * activations).relu_()

    def closed_form(self, activations: Tensor, rows: Tensor) -> Tensor:
        weights = rows / (activations.shape[2] * activations.shape[3])
        return torch.stack([self.formula(activations, w[:, :, None, None]) for w in weights.unbind(1)], 1)

    @property
    def cost(self) -> float:
        return 0.03
