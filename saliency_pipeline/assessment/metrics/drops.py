"""Average drop, increase and gain, and ADCC: the score of the class where the map masks the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.assessment.inquiry import Inquiry, enlarged
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Metric, Values
from saliency_pipeline.figures.pictures import Pixels

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AverageDrop(Metric):
    """Change of p_c, the softmax of the explained class, where the map masks the frame.

    With m, the enlarged map with its minimum as 0 and its maximum as 1, and x, the normalized frame:

    - average drop max(0, p(x) - p(m x)) / p(x), 0 where p(x) is 0;
    - average increase 1 where p(m x) > p(x), else 0;
    - average gain max(0, p(m x) - p(x)) / (1 - p(x)), 0 where p(x) is 1.

    What is masked becomes the mean color of the normalization. Masked frames are rounded to whole gray levels: p(m x)
    of an image changed by 0.02 on average, by 0.1 at most, but the average drop of 48 images of ImageNet by only 0.001
    (EfficientNet-Lite0, Grad-CAM). A map that is 1 everywhere has no drop: read it beside the complexity of the map.
    Where all values of a map are equal nothing is shown. torch-cam divides by p(x) + 1e-7; pytorch-grad-cam's drop is
    not divided at all.

    Chattopadhay et al., Grad-CAM++, WACV 2018, arXiv:1710.11063, section 4.1; gain: Zhang et al., Opti-CAM, CVIU 2024,
    arXiv:2301.07002.
    """

    name: ClassVar[str] = "average-drop"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("average-drop", "Average drop", higher=False),
        Column("average-increase", "Average increase", higher=True),
        Column("average-gain", "Average gain", higher=True),
    )
    cost: ClassVar[Cost] = Cost.SCORES
    definition: ClassVar[str] = (
        "Relative drop of the softmax of the explained class where the map, from 0 to 1, masks the image: "
        "max(0, p - p_masked) / p; increase: p_masked > p; gain: max(0, p_masked - p) / (1 - p)"
    )
    paper: ClassVar[str] = "Chattopadhay et al. 2018 (Grad-CAM++), arXiv:1710.11063; gain: arXiv:2301.07002"

    def values(self, ask: Inquiry) -> Values:
        clean, scores = ask.batch.clean(), masked_scores(ask)
        return {
            "average-drop": drop(clean, scores),
            "average-increase": (scores > clean).astype(np.float64),
            "average-gain": drop(1.0 - clean, 1.0 - scores),
        }


@dataclass(frozen=True)
class Adcc(Metric):
    """Harmonic mean of coherency, simplicity of the map, and score of the masked frame.

    ADCC = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - average drop)), 0 where one of the three is 0.

    - Coherency is (1 + r) / 2, r Pearson's correlation of m and m', where m is the mask of `AverageDrop` and m' that
      from the map of the masked frame, by the same method for the same class; 0 where one of them is constant.
    - Complexity is the mean of m: not the metric `complexity`, which is an entropy.

    A map that does not depend on the frame, such as `center-prior`, has a coherency of 1, which is no merit. Maps
    whose method cannot be computed again, as those from elsewhere, have no value.

    Poppi et al., Revisiting The Evaluation of Class Activation Mapping for Explainability: A Novel Metric and
    Experimental Analysis, CVPRW 2021, arXiv:2104.10252.
    """

    name: ClassVar[str] = "adcc"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("adcc", "ADCC", higher=True),
        Column("coherency", "Coherency", higher=True),
    )
    cost: ClassVar[Cost] = Cost.EXPLANATIONS
    definition: ClassVar[str] = (
        "Harmonic mean of coherency (correlation of the map with that of the masked image, as (1 + r) / 2), "
        "1 - complexity (mean of the map from 0 to 1) and 1 - average drop"
    )
    paper: ClassVar[str] = "Poppi et al. 2021, arXiv:2104.10252"

    def values(self, ask: Inquiry) -> Values:
        maps = ask.explain(masked(ask))
        if maps is None:
            undefined = np.full(len(ask), np.nan)
            return {"adcc": undefined, "coherency": undefined.copy()}
        coherency = (1.0 + correlation(ask.enlarged, enlarged(torch.from_numpy(maps), ask.batch.size))) / 2
        coherency[np.isnan(coherency)] = 0.0
        complexity = ask.mask.flatten(1).numpy().mean(1, dtype=np.float64)
        parts = np.stack((coherency, 1.0 - complexity, 1.0 - drop(ask.batch.clean(), masked_scores(ask))))
        with np.errstate(divide="ignore"):
            return {"adcc": 3.0 / (1.0 / parts).sum(0), "coherency": coherency}


def drop(before: Numbers, after: Numbers) -> Numbers:
    """The relative fall (B,) of scores: max(0, before - after) / before, 0 where `before` is 0."""
    lost = np.maximum(before - after, 0.0)
    values: Numbers = np.divide(lost, before, out=np.zeros_like(before), where=before > 0)
    return values


def correlation(one: torch.Tensor, other: torch.Tensor) -> Numbers:
    """Pearson's correlation (B,) of each map with its counterpart, both (B, S, S); NaN where one is constant."""
    maps = [each.flatten(1).numpy().astype(np.float64) for each in (one, other)]
    first, second = (each - each.mean(1, keepdims=True) for each in maps)
    varies = (np.ptp(maps[0], 1) > 0) & (np.ptp(maps[1], 1) > 0)
    norms = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    undefined = np.full(len(one), np.nan)
    values: Numbers = np.divide((first * second).sum(1), norms, out=undefined, where=varies & (norms > 0))
    return values


def masked(ask: Inquiry) -> Pixels:
    """Frames (B, S, S, 3) uint8, each blended with the mean color of the normalization by 1 minus the mask."""
    assert ask.batch.network is not None
    color = torch.tensor(ask.batch.network.color, dtype=torch.float32)

    def blended() -> Pixels:
        frames = torch.lerp(color, torch.from_numpy(ask.batch.frames).float(), ask.mask[..., None])
        pixels: Pixels = frames.round_().byte().numpy()
        return pixels

    return ask.once("masked", blended)


def masked_scores(ask: Inquiry) -> Numbers:
    """Softmax (B,) of the explained class for the masked frames."""
    return ask.once("masked scores", lambda: ask.batch.scores(masked(ask)))
