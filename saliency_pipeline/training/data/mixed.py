"""Mixed training images: the labels of both, and the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Mixed:
    """What the images of a batch are mixed with; see `Use.mixed`.

    Attributes:
        labels: of the partners, int64 (B,).
        share: of the own label of each image, float32 (B,) in [0, 1].
    """

    labels: Tensor
    share: Tensor


def mixed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    mixed: Mixed | None,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over a batch of share * CE(logits, own label) + (1 - share) * CE(logits, partner's label).

    Args:
        logits: float32 (B, C).
        targets: own labels, int64 (B,).
        mixed: the partners; None for the cross-entropy of the own labels.
        weights: of the classes, float32 (C,); each cross-entropy is multiplied by the weight of its own label.
        label_smoothing: of both labels.
    """
    if mixed is None:
        return functional.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=label_smoothing)
    own, other = (
        functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=label_smoothing)
        for labels in (targets, mixed.labels.to(logits.device))
    )
    share = mixed.share.to(logits.device)
    return (share * own + (1 - share) * other).sum()
