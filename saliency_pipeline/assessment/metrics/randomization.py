"""Sanity: maps of a network must change when its parameters are random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from saliency_pipeline.assessment.inquiry import Floats, Inquiry
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Curve, Metric, Values
from saliency_pipeline.assessment.metrics.robustness import explained
from saliency_pipeline.assessment.randomized import POINTS


def randomized(ask: Inquiry, point: int) -> Floats:
    """Maps (B, h, w) by the network of one point of the cascade, from 0 on, for the same classes."""

    def compute() -> Floats:
        batch = ask.batch
        assert batch.network is not None
        maps = batch.network.randomized()[point].explain(ask.method, batch.frames, batch.targets, batch.keys)
        assert maps is not None
        return maps

    return ask.once(("randomized", point), compute)


@dataclass(frozen=True)
class ParameterRandomization(Metric):
    """Parameter randomization: mean_k Spearman(|E|, |E_k|), in [-1, 1], lower is better.

    E is the map and E_k, k = 1..5, that of the network with the last k fifths of its layers random (`cascade`), for
    the same class and at the map's own resolution; values for maps of layers and maps of pixels are not comparable. The
    curve begins with the network as it is, where the similarity is 1; the mean is over the 5 others. A method that
    does not read the network has 1. Equal values share their mean rank; the similarity of a map with one value
    everywhere is 1 to another such map and 0 to any other. Adebayo et al. 2018, arXiv 1810.03292, where every layer is
    a point and similarity is also measured in other ways.
    """

    name = "parameter-randomization"
    columns = (Column("parameter-randomization", "Parameter randomization", higher=False, low=-1.0),)
    curves = (
        Curve("randomization", "Parameter randomization", "Share of random layers", "Rank correlation with the map"),
    )
    cost = Cost.RANDOMIZED
    definition = "mean over a cascade of 5 networks, from the last layers on random, of Spearman(|E|, |E random|)"
    paper = "Adebayo et al. 2018, arXiv:1810.03292"

    def values(self, ask: Inquiry) -> Values:
        clean = explained(ask)
        curve = np.full((len(ask), POINTS + 1), np.nan)
        if clean is not None:
            curve[:, 0] = 1.0
            for point in range(POINTS):
                curve[:, point + 1] = similarity(clean, randomized(ask, point))
        return {self.name: curve[:, 1:].mean(1), "randomization": curve}

    def points(self, curve: str) -> npt.NDArray[np.float64]:
        """Share of random layers (6,), from 0 to 1."""
        if curve != "randomization":
            raise KeyError(curve)
        return np.linspace(0, 1, POINTS + 1)


@dataclass(frozen=True)
class EfficientRandomization(Metric):
    """Efficient parameter randomization: (H(E_random) - H(E)) / H(E), >= -1, higher is better.

    H is the entropy of the histogram of a map's values, from their minimum to their maximum, and E_random the map by
    the network all of whose parameters are random. The number of bins is the square root of the number of cells, from
    10 to 200. A method that does not read the network has 0. Where the map has one value everywhere, H(E) = 0, the
    value is 0 if the other has, too, and undefined otherwise. Hedström et al. 2024, arXiv 2401.06465; Quantus takes 100
    bins unless a rule is requested.
    """

    name = "efficient-randomization"
    columns = (
        Column("efficient-randomization", "Efficient parameter randomization", higher=True, low=-1.0, high=None),
    )
    cost = Cost.RANDOMIZED
    definition = "(H(E random) - H(E)) / H(E), H the entropy of the histogram, the network random in all parameters"
    paper = "Hedström et al. 2024, arXiv:2401.06465"

    def values(self, ask: Inquiry) -> Values:
        clean = explained(ask)
        if clean is None:
            return {self.name: np.full(len(ask), np.nan)}
        before, after = entropy(clean), entropy(randomized(ask, POINTS - 1))
        undefined = np.where(before == after, 0.0, np.nan)
        return {self.name: np.divide(after - before, before, out=undefined, where=before > 0)}


def similarity(maps: Floats, others: Floats) -> npt.NDArray[np.float64]:
    """Spearman's rank correlation (B,) of the absolute values of maps (B, h, w).

    Of two maps, if one has the same value everywhere, it is 0, and 1 if both have.
    """
    ranks = [rankdata(np.abs(values).reshape(len(values), -1), axis=1) for values in (maps, others)]
    a, b = (values - values.mean(1, keepdims=True) for values in ranks)
    power, other_power = (a**2).sum(1), (b**2).sum(1)
    constant = np.where(power + other_power == 0, 1.0, 0.0)
    scale = np.sqrt(power * other_power)
    return np.asarray(np.clip(np.divide((a * b).sum(1), scale, out=constant, where=scale != 0), -1, 1))


def entropy(maps: Floats) -> npt.NDArray[np.float64]:
    """Entropy (B,) in nats of the histogram of each of the maps (B, h, w)."""
    bins = min(max(math.ceil(math.sqrt(maps[0].size)), 10), 200)
    entropies = np.full(len(maps), np.nan)
    for position, values in enumerate(maps.astype(np.float64)):
        if np.isfinite(values).all():
            shares = np.histogram(values, bins)[0] / values.size
            entropies[position] = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    return entropies
