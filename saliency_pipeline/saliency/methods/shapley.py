"""Shapley values of superpixels, estimated from coalitions of superpixels that stay."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.masks import SegmentMasks
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.superpixels import superpixel_grid, superpixels
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.occlusion import SCORES, mean_color
from saliency_pipeline.settings import SEEDS, setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers


@dataclass(frozen=True)
class KernelShap(Method):
    """KernelSHAP: the Shapley value of each superpixel, at all of its pixels, (N, T, S, S), signed.

    Shapley values are the coefficients of a linear model of the score that is fitted to coalitions z of superpixels
    that stay, with weights (J - 1) / (C(J, |z|) |z| (J - |z|)), and exact where all or none stay, so that they sum to
    y(x) - y(mean color) (Lundberg and Lee, arXiv 1705.07874, theorem 2). Coalitions are random, in proportion to these
    weights, each with its complement (Covert and Lee, arXiv 2012.01536); where there are no more than `samples`, all
    are used once, and the values are exact.
    """

    name = "kernelshap"
    needs = Need.FORWARD
    convention = (
        "Shapley values of superpixels, at all of their pixels: least squares over coalitions with their complements, "
        "with the Shapley kernel and the exact sum; missing superpixels have the mean color"
    )
    paper = "arXiv:1705.07874"
    signed = True

    segments: int = setting(50, "Largest number of superpixels.", range=(2, 500))
    samples: int = setting(500, "Number of coalitions, besides those of all and of none.", range=(2, 20_000))
    score: str = setting("logit", "Score of the class.", choices=SCORES)
    seed: int = setting(0, "Random seed of the coalitions.", range=SEEDS)

    @property
    def cost(self) -> float:
        rows, columns = superpixel_grid(self.segments)
        return float(min(self.samples, 2 ** (rows * columns) - 2) + 2)

    def maps(self, ask: Answers) -> Tensor:
        rows, columns = superpixel_grid(self.segments)
        areas = [superpixels(frame, self.segments) for frame in ask.frames]
        chosen = [coalitions(rows * columns, self.samples, rng) for rng in ask.random(self.name, self.seed)]
        masks = [
            SegmentMasks(torch.from_numpy(own.astype(np.float32)), torch.from_numpy(area))
            for (own, _), area in zip(chosen, areas, strict=True)
        ]
        scores = ask.masked(masks, mean_color(ask), self.score)
        maps = []
        for (own, weights), area, values in zip(chosen, areas, scores.cpu().double().numpy(), strict=True):
            maps.append(shapley_values(own, weights, values).T[:, area])
        return torch.from_numpy(np.stack(maps).astype(np.float32)).to(scores.device)


def coalitions(count: int, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions (K + 2, J) bool of J players, the first of none and the second of all, and the weights (K,) of others.

    Args:
        count: J, at least 2.
        samples: the largest K; an even number is used if coalitions are random, as each comes with its complement.
        rng: random numbers.
    """
    sizes = np.arange(1, count)
    if count <= 24 and 2**count - 2 <= samples:
        chosen = np.array(list(product((False, True), repeat=count)))[1:-1]
        number = chosen.sum(1)
        weights = np.array([(count - 1) / (comb(count, k) * k * (count - k)) for k in number.tolist()])
    else:
        probabilities = 1 / (sizes * (count - sizes))
        number = rng.choice(sizes, max(1, samples // 2), p=probabilities / probabilities.sum())
        # the places of a random order below the size
        half = rng.random((len(number), count)).argsort(1).argsort(1) < number[:, None]
        chosen = np.stack([half, ~half], 1).reshape(-1, count)
        weights = np.ones(len(chosen))
    ends = np.stack([np.zeros(count, bool), np.ones(count, bool)])
    return np.concatenate([ends, chosen]), weights


def shapley_values(chosen: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Values (J, T) of J players by weighted least squares; they sum to the score of all minus that of none.

    Args:
        chosen: (K + 2, J) bool, see `coalitions`.
        weights: (K,).
        scores: (K + 2, T) float64 of the coalitions.
    """
    total = scores[1] - scores[0]
    members = chosen[2:].astype(np.float64)
    # the last value follows from the sum, so that the sum is exact
    factors = np.sqrt(weights)[:, None]
    left = factors * (members[:, :-1] - members[:, -1:])
    right = factors * (scores[2:] - scores[0] - members[:, -1:] * total)
    values = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.concatenate([values, total - values.sum(0, keepdims=True)])
