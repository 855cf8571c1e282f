"""Class activation maps from a layer's activations and their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_pipeline.saliency.methods.method import LayerMethod


@dataclass(frozen=True)
class GradCam(LayerMethod):
    """Grad-CAM, see `grad_cam`."""

    name = "gradcam"
    convention = "ReLU(sum_k mean_ij(dy/dA_k) A_k) on the logit y, at the layer's own resolution"
    paper = "arXiv:1610.02391"

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return grad_cam(activations, gradients)

    def closed_form(self, activations: Tensor, rows: Tensor) -> Tensor:
        return linear_grad_cam(activations, rows)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: ReLU(sum_k mean_ij(dy/dA_k) A_k) on the logit y (Selvaraju et al., arXiv 1610.02391, equations 1-2).

    Args:
        activations: (N, C, h, w), the explained layer's output A.
        gradients: (N, C, h, w), gradient of each image's logit with respect to A.

    Returns:
        (N, h, w), >= 0, in logits per cell times h w; neither up-sampled nor normalized.

    >>> a = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    >>> grad_cam(a, torch.tensor([[[[1.0, 1.0]], [[0.5, 0.5]]]]))
    tensor([[[2.5000, 0.0000]]])
    """
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * activations).sum(1).relu()


def linear_grad_cam(activations: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM of a network whose head is average pooling and one linear layer: no gradient has to be computed.

    There dy_c/dA_k = w_ck / (h w) at every cell, so the map is the class activation map divided by h w
    (Zhou et al., arXiv 1512.04150; Selvaraju et al., arXiv 1610.02391, section 3.1).

    Args:
        activations: (N, C, h, w).
        weights: (N, T, C), the linear layer's rows for each image's T targets.

    Returns:
        (N, T, h, w), >= 0, equal to `grad_cam` for each target.
    """
    n, _, h, w = activations.shape
    return torch.bmm(weights, activations.flatten(2)).relu_().div_(h * w).view(n, -1, h, w)
