"""`attention-loss`: a term of the loss pulls the network's own class activation map toward the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.settings import setting
from saliency_pipeline.uses.use import Use

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-5
_LEAST_SPAN = 1e-6


@dataclass(frozen=True)
class AttentionLoss(Use):
    """Attention loss: weight * d(cam, map) is added to the cross entropy of each training image.

    cam = w_c A / (h w), the class activation map of the image's own class c (Zhou et al., arXiv 1512.04150), where A is
    (C, h, w), the features before average pooling, and w_c the class's row of the linear head: sum(cam) + b_c is the
    logit. The map is averaged over the cells of that grid. With m(x) = (x - min x) / (max x - min x):

    - cyborg: d = mean((m(cam) - m(map))^2) (Boyd et al., arXiv 2112.00686, with weight = (1 - a) / a).
    - rrr: d = sum(relu(cam) (1 - m(map))) / sum(relu(cam)), the share of the evidence outside the map. Right for the
      right reasons (Ross et al., arXiv 1703.03717) penalizes squared gradients of the log-probabilities with respect to
      pixels outside a mask; the class activation map in their place needs no second backward pass.

    A map that is constant on the grid marks no place: d = 0. The gradient passes through features and head. The network
    that is trained is a plain baseline, which needs no maps.
    """

    name = "attention-loss"
    formula = "cross entropy + weight * mean((minmax(w_c A) - minmax(map))^2)"
    paper = "arXiv:2112.00686, arXiv:1703.03717"
    at_test = False

    weight: float = setting(1.0, "Weight of the term; 0: the baseline.", range=(0.0, 1e4))
    variant: str = setting(
        "cyborg",
        "cyborg: squared difference of the class activation map and the map; rrr: share of the class activation map "
        "outside the map.",
        choices=("cyborg", "rrr"),
    )

    @property
    def reads_maps(self) -> bool:
        return self.weight > 0

    def penalties(self, features: Tensor, rows: Tensor, maps: Tensor) -> Tensor:
        """The term of each image, weight * d, (B,) float32 >= 0.

        Args:
            features: (B, C, h, w), what average pooling reads.
            rows: (B, C), the rows of the linear head for the images' own classes.
            maps: (B, 1, S, S) float32, normalized.
        """
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        h, w = features.shape[2:]
        cams = torch.bmm(rows[:, None].float(), features.float().flatten(2))[:, 0] / (h * w)
        cells = adaptive_avg_pool2d(maps, (h, w)).flatten(1)
        low, high = cells.amin(1, keepdim=True), cells.amax(1, keepdim=True)
        constant = high - low <= _ROUNDING * torch.maximum(high.abs(), low.abs())
        # not divided by 0, whose gradient would be NaN even where it does not count
        wanted = (cells - low) / torch.where(constant, 1.0, high - low)
        if self.variant == "cyborg":
            lowest = cams.amin(1, keepdim=True)
            span = (cams.amax(1, keepdim=True) - lowest).clamp_min(_LEAST_SPAN)
            distances = ((cams - lowest) / span - wanted).square().mean(1)
        else:
            evidence = cams.relu()
            distances = (evidence * (1 - wanted)).sum(1) / evidence.sum(1).clamp_min(_LEAST_SPAN)
        return self.weight * torch.where(constant[:, 0], 0.0, distances)
