"""Eigen-CAM and Eigen-grad-CAM: the cells of a layer, projected onto their first principal component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import GradientLayerMethod, LayerMethod

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

# powers of the Gram matrix: 1024 by squaring, and four times as much by products with a vector, which cost less
_POWERS, _PRODUCTS = (8, 8, 8, 2), 3


def principal_projection(values: Tensor) -> Tensor:
    """Projection of each cell's values, minus their mean over cells, onto their first principal component.

    The component comes from powers of the Gram matrix G of the n cells (or channels, where these are fewer), in half
    the time of `torch.linalg.eigh` for grids of 7 x 7. Its variance is at least n^(-1/1024) times the largest possible
    one, but for rounding: 0.996 for 49 cells. So it differs from the first component only where the second has nearly
    the same variance.

    Args:
        values: (N, C, h, w) for N images.

    Returns:
        (N, h, w), with the sign that makes the largest absolute value positive; 0 where all cells are equal.
    """
    return _projection(values).view(len(values), *values.shape[2:])


def _projection(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """`principal_projection` (N, n) of the values (N, C, h, w), or of their product with weights (N, C)."""
    cells = values.flatten(2)
    if cells.shape[2] <= cells.shape[1]:
        gram = _centered(pad(_gram(_differences(cells, weights)), (1, 0, 1, 0)))
        vector = _first_eigenvector(gram)
        # its Rayleigh quotient is the square of the singular value
        projection = vector * (torch.bmm(vector, gram) * vector).sum(2, keepdim=True).relu().sqrt()
    else:
        cells = pad(_differences(cells, weights), (1, 0))
        cells -= cells.mean(2, keepdim=True)
        projection = torch.bmm(_first_eigenvector(torch.bmm(cells, cells.transpose(1, 2))), cells)
    lowest, highest = projection.aminmax(dim=2, keepdim=True)
    return torch.where(highest >= -lowest, projection, -projection)


def _differences(cells: Tensor, weights: Tensor | None) -> Tensor:
    """Differences of all other cells to the first (N, C, n - 1), exactly 0 where all cells are equal."""
    differences = cells[:, :, 1:] - cells[:, :, :1]
    return differences if weights is None else differences.mul_(weights[:, :, None])


def _gram(values: Tensor) -> Tensor:
    """Inner products (N, n, n) of columns (N, C, n), without computing the symmetric part twice."""
    half, rows = values.shape[2] // 2, values.transpose(1, 2)
    top, corner = torch.bmm(rows[:, :half], values), torch.bmm(rows[:, half:], values[:, :, half:])
    return torch.cat([top, torch.cat([top[:, :, half:].transpose(1, 2), corner], 2)], 1)


def _centered(gram: Tensor) -> Tensor:
    """Inner products of vectors minus the vectors' mean, from those of the vectors (N, n, n)."""
    means = gram.mean(1, keepdim=True)
    return gram - means - means.transpose(1, 2) + means.mean(2, keepdim=True)


def _first_eigenvector(gram: Tensor) -> Tensor:
    """Eigenvectors (N, 1, n) of length 1 to the largest eigenvalues of positive semidefinite (N, n, n); 0 of zeros."""
    least = torch.finfo(gram.dtype).tiny
    for power in _POWERS:
        # the largest element is on the diagonal; divided by it, the largest eigenvalue is between 1 and n
        largest = gram.diagonal(dim1=1, dim2=2).amax(1).clamp_min_(least)
        gram = torch.linalg.matrix_power(gram / largest[:, None, None], power)
    # all rows tend to the eigenvector; that with the largest diagonal element is the farthest from 0
    largest = gram.diagonal(dim1=1, dim2=2).argmax(1)
    row = gram[torch.arange(len(gram), device=gram.device), largest][:, None]
    for _ in range(_PRODUCTS):
        row = normalize(torch.bmm(row, gram), dim=2, eps=least)
    return row


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
    near_ties = True
    class_specific = False

    def maps(self, ask: Answers) -> Tensor:
        activations = ask.activations(self.layer)
        return principal_projection(activations).relu_()[:, None]

    @property
    def cost(self) -> float:
        return 0.03


@dataclass(frozen=True)
class EigenGradCam(GradientLayerMethod):
    """Eigen-grad-CAM: first principal component of dy/dA A, maps (N, h, w) >= 0 (pytorch-grad-cam, no paper)."""

    name = "eigengradcam"
    convention = (
        "ReLU of the projection of dy/dA A, centered over cells, onto its first principal component, flipped where "
        "|min| > |max|"
    )
    paper = "pytorch-grad-cam (software)"
    near_ties = True

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return principal_projection(gradients * activations).relu_()

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        activations = ask.activations(self.layer)
        n, _, h, w = activations.shape
        maps = [_projection(activations, row / (h * w)).relu_() for row in rows.unbind(1)]
        return torch.cat(maps, 1).view(n, -1, h, w)

    @property
    def cost(self) -> float:
        return 0.03
