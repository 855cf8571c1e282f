"""Score-CAM and Group-CAM: channels of a layer, weighted by the score of the frame that they mask.

The masks come from the image's own activations, so that images do not share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from saliency_pipeline.saliency.engine.masks import GridMasks, bilinear
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.cam import weighted_sum
from saliency_pipeline.saliency.methods.method import LayerMethod, Setup
from saliency_pipeline.saliency.methods.occlusion import mean_color
from saliency_pipeline.settings import setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

BLUR_WINDOW, BLUR_DEVIATION = 51 / 224, 50 / 224
"""Side of Group-CAM's Gaussian window and its standard deviation, relative to the side of the frame."""

KEPT_QUANTILE = 0.7
"""Quantile of a group's map up to which Group-CAM's masks are 0."""


@dataclass(frozen=True)
class ScoreCam(LayerMethod):
    """Score-CAM: ReLU(sum_k w_k A_k), w_k the score of the frame masked by channel k, (N, T, h, w), >= 0.

    The mask is A_k from its minimum to its maximum as 0 to 1, enlarged bilinearly. Its weight is the probability of the
    class, as in the authors' code (Wang et al., arXiv 1910.01279), or the softmax of the logits over the channels, as
    in torch-cam. Only the channels with the largest variance over the cells are used, as in Faster Score-CAM; those
    that are constant never are.
    """

    name = "scorecam"
    needs = Need.ACTIVATIONS | Need.FORWARD
    convention = (
        "ReLU(sum_k w_k A_k) over the channels of the largest variance, w_k the probability of the class, or the "
        "softmax over these channels of its logits, for the frame on the mean color masked by A_k from 0 to 1"
    )
    paper = "arXiv:1910.01279"
    near_ties = True

    channels: int = setting(64, "Number of channels, those with the largest variance; 0 for all.", range=(0, 100_000))
    weights: str = setting("probability", "Weights of the channels.", choices=("probability", "softmax"))

    @property
    def cost(self) -> float:
        return self.passes(Setup())

    def passes(self, setup: Setup) -> float:
        return float(min(self.channels or setup.channels, setup.channels))

    def maps(self, ask: Answers) -> Tensor:
        activations = ask.activations(self.layer)
        cells = activations.flatten(2)
        varied = cells.amax(2) > cells.amin(2)
        variances = cells.var(2, correction=0).where(varied, -1.0)
        order = variances.argsort(dim=1, descending=True, stable=True)[:, : self.channels or None]
        picked = activations.gather(1, order[:, :, None, None].expand(-1, -1, *activations.shape[2:]))
        # constant channels come last; those behind the last other one of any image take no passes
        varied = varied.gather(1, order)[:, :, None]
        count = max(1, int(varied.sum(1).max()))
        score = "probability" if self.weights == "probability" else "logit"
        scores = ask.masked(_enlarged(_unit_range(picked[:, :count]), ask.size), mean_color(ask), score)
        # sums have the same length whatever the other images are, since their rounding depends on it
        scores = pad(scores, (0, 0, 0, picked.shape[1] - count)).where(
            varied, 0.0 if score == "probability" else -torch.inf
        )
        if self.weights == "softmax":
            # a layer that is constant everywhere has no channels
            scores = scores.softmax(1).nan_to_num(0.0)
        return weighted_sum(picked, scores.transpose(1, 2)).relu_()


@dataclass(frozen=True)
class GroupCam(LayerMethod):
    """Group-CAM: ReLU(sum_g w_g m_g) over groups of channels, (N, T, h, w), >= 0 (Zhang et al., arXiv 2103.13859).

    The layer's channels, weighted as in Grad-CAM, are split in their order into groups; a mask m_g is the ReLU of a
    group's sum without the values up to its 70 % quantile, from its minimum to its maximum as 0 to 1, enlarged
    bilinearly. Its weight is the probability of the class for the frame that is blurred outside of the mask, minus that
    for the frame blurred everywhere. Masks depend on the class: each explained class has passes of its own.
    """

    name = "groupcam"
    needs = Need.ACTIVATIONS | Need.GRADIENTS | Need.FORWARD
    convention = (
        "ReLU(sum_g (p(m_g x + (1 - m_g) blur(x)) - p(blur(x))) m_g), m_g the ReLU of a group's sum of "
        "mean_ij(dy/dA_k) A_k without the values up to its 70 % quantile, from 0 to 1; at the layer's own resolution"
    )
    paper = "arXiv:2103.13859"

    groups: int = setting(32, "Number of groups of channels.", range=(1, 100_000))

    @property
    def cost(self) -> float:
        return self.passes(Setup())

    def passes(self, setup: Setup) -> float:
        return float((min(self.groups, setup.channels) + 1) * setup.targets)

    def maps(self, ask: Answers) -> Tensor:
        activations, fill = ask.activations(self.layer), blurred_frames(ask.frames)
        maps = []
        for t, gradients in enumerate(ask.gradients(self.layer)):
            weighted = gradients.mean((2, 3), keepdim=True) * activations
            parts = weighted.chunk(min(self.groups, weighted.shape[1]), 1)
            sums = torch.stack([part.sum(1) for part in parts], 1).relu_()
            limits = sums.flatten(2).quantile(KEPT_QUANTILE, 2)[:, :, None, None]
            masks = _unit_range(sums.where(sums > limits, 0.0))
            # the last mask replaces all
            grids = pad(masks, (0, 0, 0, 0, 0, 1))
            scores = ask.masked(_enlarged(grids, ask.size), fill, "probability")[:, :, t]
            maps.append(weighted_sum(masks, (scores[:, :-1] - scores[:, -1:])[:, None])[:, 0].relu_())
        return torch.stack(maps, 1)


def blurred_frames(frames: np.ndarray) -> Tensor:
    """Frames (N, S, S, 3) uint8 under a Gaussian window, float32; beyond the border they are mirrored."""
    size = frames.shape[1]
    window = 2 * int(BLUR_WINDOW * size / 2) + 1
    floats = [frame.astype(np.float32) for frame in frames]
    return torch.from_numpy(np.stack([cv2.GaussianBlur(f, (window, window), BLUR_DEVIATION * size) for f in floats]))


def _enlarged(grids: Tensor, size: int) -> list[GridMasks]:
    """Masks of each of N frames from grids (N, K, h, w)."""
    rows, columns = (bilinear(size, cells)[None] for cells in grids.shape[2:])
    return [GridMasks(own, rows, columns) for own in grids]


def _unit_range(values: Tensor) -> Tensor:
    """Grids (N, K, h, w) with the minimum of each as 0 and its maximum as 1; 0 where all cells are equal."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return (values - low) / torch.where(high > low, high - low, 1.0)
