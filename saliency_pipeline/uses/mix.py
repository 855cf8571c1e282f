"""`mix`: training images are mixed, a patch where the map peaks, or as in CutMix and mixup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import setting
from saliency_pipeline.uses.places import Box, marks_place, mass_share
from saliency_pipeline.uses.use import MIXED, PARTNERS, Seeds, Use, random_numbers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mix(Use):
    """Mix: a patch of another image of the batch replaces its place (SaliencyMix, Uddin et al., arXiv 2006.01791).

    The patch has the area 1 - r of the frame, r ~ Beta(alpha, alpha), and its center is the greatest value of the
    partner's map; it is clipped at the border. An image keeps the share of its own label that its own pixels have
    (`labels=area`), or own / (own + patch), where own is the share of its map's mass that the patch leaves and patch
    the share of the partner's map's mass that comes with it (`labels=mass`). A constant map marks no place: the center
    is random, as in CutMix, and its mass is area.

    Controls that read no maps: `kind=cutmix` (Yun et al., arXiv 1905.04899), whose patch is at a random place, and
    `kind=mixup` (Zhang et al., arXiv 1710.09412), r * image + (1 - r) * partner.
    """

    name = "mix"
    formula = "a patch of area 1 - r around the partner's argmax map, r ~ Beta(alpha, alpha); labels mixed by share"
    paper = "arXiv:2006.01791"
    at_test = False
    maps_in_batches = False

    kind: str = setting(
        "saliency",
        "saliency: a patch where the partner's map peaks; cutmix: a patch at a random place; mixup: both images "
        "blended.",
        choices=("saliency", "cutmix", "mixup"),
    )
    labels: str = setting(
        "area", "Shares of the labels: by area, or by the mass of the maps (kind=saliency).", choices=("area", "mass")
    )
    alpha: float = setting(1.0, "Parameter of the Beta distribution of the shares.", range=(0.01, 100.0))
    p: float = setting(0.5, "Probability that an image is mixed.", range=(0.0, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels == "mass" and self.kind != "saliency":
            raise OptionError(f"--labels mass: kind={self.kind} reads no maps; use kind=saliency or labels=area")

    @property
    def reads_maps(self) -> bool:
        return self.kind == "saliency"

    def mix(self, images: Tensor, maps: Tensor | None, seeds: Seeds) -> tuple[Tensor, Tensor, Tensor] | None:
        import numpy as np
        import torch
        from scipy.special import betaincinv

        count, side = len(images), images.shape[-1]
        numbers = np.stack([random_numbers(seed, MIXED).random(4) for seed in seeds])
        chosen = numbers[:, 0] < self.p
        if count < 2 or not chosen.any():
            return None
        partners = _partners([number for seed in seeds for number in seed], count)
        ratios = betaincinv(self.alpha, self.alpha, numbers[:, 1])
        if self.kind == "mixup":
            shares = torch.from_numpy(np.where(chosen, ratios, 1.0)).float()
            blended = torch.lerp(images[partners].float(), images.float(), shares.view(-1, 1, 1, 1))
            return blended.round_().byte().contiguous(memory_format=torch.channels_last), partners, shares
        result, shares = images.clone(), torch.ones(count)
        centers = [(int(down * side), int(right * side)) for down, right in numbers[:, 2:].tolist()]
        marked = [False] * count if maps is None else marks_place(maps).tolist()
        for i, partner in enumerate(partners.tolist()):
            if not chosen[i]:
                continue
            center = centers[i]
            if maps is not None and marked[partner]:
                center = divmod(int(maps[partner, 0].argmax()), side)
            box = _patch(center, 1 - float(ratios[i]), side)
            top, left, height, width = box
            down, right = slice(top, top + height), slice(left, left + width)
            result[i, :, down, right] = images[partner, :, down, right]
            shares[i] = self._share(maps, (i, partner), marked, box, side)
        return result, partners, shares

    def _share(self, maps: Tensor | None, pair: tuple[int, int], marked: list[bool], box: Box, side: int) -> float:
        """The share of an image's own label."""
        area = box[2] * box[3] / side**2
        if self.labels == "area" or maps is None:
            return 1 - area
        lost, patch = (mass_share(maps[i, 0], box) if marked[i] else area for i in pair)
        return (1 - lost) / (1 - lost + patch) if patch > 0 or lost < 1 else 1 - area


def _patch(center: tuple[int, int], area: float, side: int) -> Box:
    """A square of an area relative to the frame around a pixel, clipped at the border."""
    length = int(side * area**0.5)
    (top, bottom), (left, right) = (
        (max(place - length // 2, 0), min(place - length // 2 + length, side)) for place in center
    )
    return top, left, bottom - top, right - left


def _partners(seed: list[int], count: int) -> Tensor:
    """For each image another one, int64 (B,): every image is the partner of one."""
    import numpy as np
    import torch

    order = np.argsort(random_numbers(seed, PARTNERS).random(count), kind="stable")
    partners = np.empty(count, np.int64)
    partners[order] = np.roll(order, 1)
    return torch.from_numpy(partners)
