"""Class activation maps: the channels of a layer's activations, weighted by gradients or by the loss of a logit.

Below A_k is channel k of the explained layer (N, C, h, w), g = dy/dA the gradient of the explained logit y. A linear
head is average pooling and one linear layer with weights w_k: there g_k = w_k / (h w) at every cell, and the
`closed_form` of a method needs no backward pass. Maps are raw: neither up-sampled nor normalized.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import GradientLayerMethod, Grids, LayerMethod, Method
from saliency_pipeline.settings import setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

LINEAR_HEAD = "where the head is average pooling and one linear layer"
"""Condition of most equalities between these methods."""


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
    cells = activations.shape[2] * activations.shape[3]
    return weighted_sum(activations, weights).relu_().div_(cells)


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Sums of channels sum_k w_tk A_k, (N, T, h, w), of activations (N, C, h, w) with weights (N, T, C)."""
    n, _, h, w = activations.shape
    return torch.bmm(weights, activations.flatten(2)).view(n, -1, h, w)


def _mean_contribution(ask: Answers, layer: str | None, rows: Tensor) -> Tensor:
    """`weighted_sum` by the rows of a linear head, divided by h w; computed once, so it must not be modified."""

    def compute() -> Tensor:
        maps = weighted_sum(ask.activations(layer), rows)
        return maps.div_(maps.shape[2] * maps.shape[3])

    return ask.once(("contribution", layer), compute)


def _divisor(values: Tensor) -> Tensor:
    """The values, but 1 in place of 0."""
    return torch.where(values == 0, 1.0, values)


@dataclass(frozen=True)
class GradCam(GradientLayerMethod):
    """Grad-CAM: ReLU(sum_k mean(g_k) A_k), maps (N, h, w) >= 0 (Selvaraju et al., arXiv 1610.02391)."""

    name = "gradcam"
    convention = "ReLU(sum_k mean_ij(dy/dA_k) A_k) on the logit y, at the layer's own resolution"
    paper = "arXiv:1610.02391"
    equals = f"the class activation map after a ReLU, divided by h w, {LINEAR_HEAD}"

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return grad_cam(activations, gradients)

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        return _mean_contribution(ask, self.layer, rows).relu()


@dataclass(frozen=True)
class GradCamPlusPlus(GradientLayerMethod):
    """Grad-CAM++: ReLU(sum_k w_k A_k), maps (N, h, w) >= 0 (Chattopadhay et al., arXiv 1710.11063, equation 19).

    w_k = sum_ij alpha_kij ReLU(g_kij), alpha = g^2 / (2 g^2 + g^3 sum_ab A_kab), without an epsilon: alpha is 0 where
    its denominator is. `normalized` divides the alphas of a channel by their sum over the cells where g > 0, as the
    authors' code does.
    """

    name = "gradcampp"
    convention = (
        "ReLU(sum_k sum_ij(alpha ReLU(g)) A_k), alpha = g^2 / (2 g^2 + g^3 sum_ij A_k), or 0 if its denominator is; "
        "g = dy/dA_k of the logit y; if normalized, alpha is divided by its sum over the cells with g > 0"
    )
    paper = "arXiv:1710.11063"
    equals = f"layercam if normalized, {LINEAR_HEAD}"
    normalized: bool = setting(False, "Divide the alphas by their sum per channel, as the authors' code does.")

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        # alpha after division by g^2, which underflows in float32; cells with g <= 0 have no weight
        denominators = 2 + gradients * activations.sum((2, 3), keepdim=True)
        alphas = torch.where((gradients > 0) & (denominators != 0), 1 / denominators, 0.0)
        if self.normalized:
            alphas = alphas / _divisor(alphas.sum((2, 3), keepdim=True))
        weights = (alphas * gradients.relu()).sum((2, 3))
        return weighted_sum(activations, weights[:, None])[:, 0].relu_()

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        if self.normalized:
            return linear_grad_cam(ask.activations(self.layer), rows.relu())
        denominators = 2 + rows * ask.pooled(self.layer)[:, None]
        weights = torch.where(denominators == 0, 0.0, rows.relu() / denominators)
        return weighted_sum(ask.activations(self.layer), weights).relu_()


@dataclass(frozen=True)
class XGradCam(GradientLayerMethod):
    """XGrad-CAM: ReLU(sum_k w_k A_k), w_k = sum_ij(g_k A_k) / S_k, S_k = sum_ij A_k (Fu et al., arXiv 2008.02312).

    Maps (N, h, w) >= 0. w_k is 0 where |S_k| <= 1e-6 max_k |S_k|: there is no epsilon, and layers with values of both
    signs would otherwise get weights without bound. On a linear head S_k cancels.
    """

    name = "xgradcam"
    convention = (
        "ReLU(sum_k sum_ij(dy/dA_k A_k) / S_k A_k), S_k = sum_ij A_k, without the channels where |S_k| <= 1e-6 max|S|"
    )
    paper = "arXiv:2008.02312"
    equals = f"gradcam {LINEAR_HEAD}"

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        sums = activations.sum((2, 3))
        sizes = sums.abs()
        large = sizes > 1e-6 * sizes.amax(1, keepdim=True)
        weights = torch.where(large, (gradients * activations).sum((2, 3)) / sums, 0.0)
        return weighted_sum(activations, weights[:, None])[:, 0].relu_()

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        return _mean_contribution(ask, self.layer, rows).relu()


@dataclass(frozen=True)
class LayerCam(GradientLayerMethod):
    """LayerCAM: ReLU(sum_k ReLU(g_k) A_k), maps (N, h, w) >= 0 (Jiang et al., IEEE TIP 2021).

    With `fuse` the maps M of several layers (`layer=a+b`) become one on the finest grid: the maximum, as in the paper,
    or the mean of tanh(2 M / max M) (equation 9), up-sampled bilinearly. Its values are in [0, 1).
    """

    name = "layercam"
    convention = (
        "ReLU(sum_k ReLU(dy/dA_k) A_k) on the logit y, at the layer's own resolution; fused maps are the maximum or "
        "mean over layers of tanh(2 map / its maximum), up-sampled bilinearly to the finest grid"
    )
    paper = "doi:10.1109/TIP.2021.3089943"
    equals = f"gradcampp:normalized {LINEAR_HEAD}"
    fuse: str | None = setting(
        None, "Combine the maps of several layers into one.", choices=("max", "mean"), default_text="one per layer"
    )

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.relu() * activations).sum(1).relu_()

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        return linear_grad_cam(ask.activations(self.layer), rows.relu())

    def maps(self, ask: Answers) -> Tensor:
        if self.fuse is None:
            return super().maps(ask)
        maps = [dataclasses.replace(self, fuse=None, layer=layer).maps(ask) for layer in self.explained(ask.layers[:1])]
        grid = [max(m.shape[side] for m in maps) for side in (2, 3)]
        scaled = (torch.tanh(2 * m / _divisor(m.amax((2, 3), keepdim=True))) for m in maps)
        fused = torch.stack([interpolate(m, grid, mode="bilinear") for m in scaled])
        return fused.amax(0) if self.fuse == "max" else fused.mean(0)

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        own = [grids[layer] for layer in self.explained(tuple(grids)[:1])]
        return max(height for height, _ in own), max(width for _, width in own)

    def explained(self, layers: tuple[str, ...] = ()) -> tuple[str, ...]:
        if self.fuse is None or self.layer is None:
            return super().explained(layers)
        return tuple(dict.fromkeys(self.layer.split("+")))

    def for_layers(self, layers: tuple[str, ...]) -> tuple[Method, ...]:
        if self.fuse is None or self.layer is not None or len(layers) < 2:
            return super().for_layers(layers)
        return (dataclasses.replace(self, layer="+".join(layers)),)


@dataclass(frozen=True)
class HiResCam(GradientLayerMethod):
    """HiResCAM: sum_k g_k A_k, maps (N, h, w) with their sign (Draelos and Carin, arXiv 2011.08891).

    On a linear head a map sums to the logit minus the bias of its class. Where a layer norm is all that reads a cell,
    as behind the last stage of Swin and the default layer of ViT, it is all but 0, as the norm ignores the scale of
    its input. Choose an earlier layer there, or the norm itself.
    """

    name = "hirescam"
    convention = "sum_k dy/dA_k A_k on the logit y, with its sign, at the layer's own resolution"
    paper = "arXiv:2011.08891"
    equals = f"gradcam before its ReLU {LINEAR_HEAD}"
    signed = True

    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return (gradients * activations).sum(1)

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor:
        return _mean_contribution(ask, self.layer, rows)


@dataclass(frozen=True)
class AblationCam(LayerMethod):
    """Ablation-CAM: ReLU(sum_k w_k A_k), w_k = (y - y_k) / |y|, where y_k is the logit with channel k set to 0.

    Maps (N, h, w) >= 0 (Desai and Ramaswamy, WACV 2020). One pass through the head per channel; on a linear head
    y - y_k = w_k mean(A_k). The paper divides by y, which turns a map round where y is negative.
    """

    name = "ablationcam"
    needs = Need.ACTIVATIONS | Need.HEAD
    convention = "ReLU(sum_k (y - y_k) / |y| A_k), y_k the logit y with channel k of the layer set to 0"
    paper = "doi:10.1109/WACV45572.2020.9093360"

    def maps(self, ask: Answers) -> Tensor:
        activations, rows, scores = ask.activations(self.layer), ask.rows(self.layer), ask.scores()
        drops = self._drops(ask) if rows is None else rows * ask.pooled(self.layer)[:, None]
        return weighted_sum(activations, drops / _divisor(scores.abs())[:, :, None]).relu_()

    def _drops(self, ask: Answers) -> Tensor:
        """Loss of each score (N, T) without each channel, (N, T, C)."""
        activations, scores = ask.activations(self.layer), ask.scores()
        ablated, drops = activations.clone(), []
        for k in range(activations.shape[1]):
            ablated[:, k] = 0
            drops.append(scores - ask.scores(ask.head(ablated, self.layer)))
            ablated[:, k] = activations[:, k]
        return torch.stack(drops, 2)


@dataclass(frozen=True)
class FinerCam(LayerMethod):
    """Finer-CAM: Grad-CAM of y_c - gamma mean_d y_d over the classes d whose logits are nearest to y_c.

    Maps (N, h, w) >= 0: what tells the class from those that it is confused with (Zhang et al., arXiv 2501.11309).
    The mean is a plain one and the choice of d is not differentiated.
    """

    name = "finercam"
    needs = Need.ACTIVATIONS | Need.GRADIENTS | Need.CONTRASTS
    convention = (
        "ReLU(sum_k mean_ij(dz/dA_k) A_k), z = y - gamma mean_d y_d, "
        "d the classes whose logits are nearest to the logit y, as many as `references`"
    )
    paper = "arXiv:2501.11309"
    near_ties = True
    gamma: float = setting(0.6, "Weight of the reference classes.", range=(0.0, 10.0))
    references: int = setting(3, "Number of reference classes, those with the nearest logits.", range=(1, 1000))

    def maps(self, ask: Answers) -> Tensor:
        activations, nearest = ask.activations(self.layer), self.nearest(ask.logits(), ask.targets())
        if (rows := ask.rows(self.layer)) is not None:
            others = ask.rows(self.layer, nearest)
            if others is not None and others.numel():
                rows = rows - self.gamma * others.mean(2)
            return linear_grad_cam(activations, rows)
        contrast = self.contrast(ask.logits(), ask.targets(), nearest)
        return torch.stack([grad_cam(activations, g) for g in ask.gradients(self.layer, contrast)], 1)

    def nearest(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The R classes (N, T, R) whose logits (N, K) are nearest to that of each target (N, T); R may be 0."""
        distances = (logits[:, None] - logits.gather(1, targets)[:, :, None]).abs()
        distances.scatter_(2, targets[:, :, None], float("inf"))
        return distances.topk(min(self.references, logits.shape[1] - 1), 2, largest=False).indices

    def contrast(self, logits: Tensor, targets: Tensor, nearest: Tensor) -> Tensor:
        """Weights (N, T, K) of the logits (N, K): 1 for each target (N, T), -gamma / R for its R references."""
        weights = torch.zeros((*targets.shape, logits.shape[1]), dtype=logits.dtype, device=logits.device)
        weights.scatter_(2, nearest, -self.gamma / max(nearest.shape[2], 1))
        return weights.scatter_(2, targets[:, :, None], 1.0)
