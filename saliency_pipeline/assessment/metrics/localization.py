"""Metrics that compare maps with boxes of objects: do the maps point at the object?

An image without a box has no value. Boxes are compared with the pixels whose centers are inside; one that is too small
for any is a pixel. The union of an image's boxes counts where a metric needs an area. Negative values of signed maps
are the least salient ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.assessment.inquiry import enlarged
from saliency_pipeline.assessment.metrics.metric import Column, Curve, Metric, Values
from saliency_pipeline.settings import check_settings, setting

if TYPE_CHECKING:
    from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry

COARSE, FINE = 28, 56
"""Side of the grid on which connected components are searched: for maps of up to 28 cells per side, as those of last
layers, and for finer ones. On 227 photographs with boxes all class activation maps are within 0.012 of their values on
the finer grid, which takes three times as long; maps of pixels and masks of small objects need it."""

THRESHOLDS = 40
"""Thresholds of `Localization`; 80 differ by less than 0.006 on the same photographs."""

LEVELS = (0.3, 0.5, 0.7)
"""Intersection over union that `Localization` asks for; MaxBoxAccV2 is the mean over the three."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Boxes:
    """The boxes of a batch.

    Attributes:
        owner: (M,) int64, image of each of the M boxes.
        corners: (M, 4) float64, x0, y0, x1, y1 in pixels of the frame.
        low: (M, 2) int64, x and y of the first pixel of each.
        high: (M, 2) int64, x and y of the last one.
        union: (B, S, S) bool, whether a pixel is in any box of an image.
        area: (B,) float64, pixels of the union; NaN without boxes.
        counts: (B,) int64, number of boxes.
    """

    owner: npt.NDArray[np.int64]
    corners: Floats
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    union: npt.NDArray[np.bool_]
    area: Floats
    counts: npt.NDArray[np.int64]


def boxes_of(batch: ImageBatch) -> _Boxes:
    """The boxes of a batch, prepared once for all methods."""
    return batch.once("boxes", lambda: _prepared(batch))


def _prepared(batch: ImageBatch) -> _Boxes:
    counts = np.array([len(boxes) for boxes in batch.boxes], np.int64)
    owner = np.repeat(np.arange(len(batch)), counts)
    corners = np.concatenate([np.empty((0, 4)), *(boxes.reshape(-1, 4) for boxes in batch.boxes)])
    low = np.minimum(np.ceil(corners[:, :2] - 0.5), batch.size - 1).astype(np.int64)
    high = np.maximum(np.ceil(corners[:, 2:] - 1.5).astype(np.int64), low)
    union = np.zeros((len(batch), batch.size, batch.size), np.bool_)
    for image, (left, top), (right, bottom) in zip(owner.tolist(), low.tolist(), high.tolist(), strict=True):
        union[image, top : bottom + 1, left : right + 1] = True
    area = np.count_nonzero(union, axis=(1, 2)).astype(np.float64)
    area[area == 0] = np.nan
    return _Boxes(owner, corners, low, high, union, area, counts)


@dataclass(frozen=True)
class PointingGame(Metric):
    """Pointing game: 1 where the greatest value of the enlarged map is in a box or less than 15 pixels from it, else 0.

    The distance is that between centers of pixels to the nearest one of a box, as in TorchRay, strictly below the
    tolerance. Of equal greatest values the first in rows counts: a constant map points at the upper left corner. In
    Quantus there is no tolerance, and any of equal greatest values is a hit. Single large objects are easily hit:
    compare `center-prior`. Zhang et al. 2018.
    """

    name = "pointing-game"
    columns = (Column("pointing", "Pointing game", True, by_class=True),)
    needs_boxes = True
    definition = "share of maps whose greatest value is in a box of the object or within the tolerance of it"
    paper = "Zhang et al. 2018, arXiv:1608.00507"

    tolerance: int = setting(15, "Pixels of a frame of 224; scaled with the frame.", range=(0, 224))

    def __post_init__(self) -> None:
        check_settings(self)

    def values(self, ask: Inquiry) -> Values:
        boxes, size = boxes_of(ask.batch), ask.batch.size
        rows, columns = np.divmod(ask.enlarged.flatten(1).numpy().argmax(axis=1), size)
        point = np.stack([columns, rows], axis=1)[boxes.owner]
        distance = np.maximum(np.maximum(boxes.low - point, point - boxes.high), 0)
        squared = (distance**2).sum(axis=1)
        hit = (squared == 0) | (squared < (self.tolerance * size / 224) ** 2)
        hits = np.bincount(boxes.owner, hit, len(ask)) > 0
        return {"pointing": np.where(boxes.counts > 0, hits, np.nan)}


@dataclass(frozen=True)
class EnergyPointingGame(Metric):
    """Energy-based pointing game: share of the sum of a map's positive values that is within the boxes.

    The map is enlarged first. Large objects contain much of any map, hence the gain: the share divided by the boxes'
    share of the frame, 1 for a constant map. A map without positive values has the values of a constant one. Quantus
    takes absolute values instead. Score-CAM, Wang et al. 2020; the gain is salpipe's.
    """

    name = "energy-pointing-game"
    columns = (
        Column("energy", "Energy in boxes", True),
        Column("energy-gain", "Energy gain", True, high=None),
    )
    needs_boxes = True
    definition = "sum of positive values within boxes / sum of positive values; gain: this / share of the frame"
    paper = "Wang et al. 2020, arXiv:1910.01279"

    def values(self, ask: Inquiry) -> Values:
        boxes = boxes_of(ask.batch)
        # at most 1, so that no sum is infinite
        greatest = torch.from_numpy(ask.maps).amax((1, 2), keepdim=True)
        positive = (ask.enlarged / torch.where(greatest > 0, greatest, 1)).clamp_(min=0)
        whole = positive.sum((1, 2)).double().numpy()
        # NumPy multiplies by bool in half of torch's time
        np.multiply(positive.numpy(), boxes.union, out=positive.numpy())
        inside = positive.sum((1, 2)).double().numpy()
        share = boxes.area / ask.batch.size**2
        energy = np.where(whole > 0, inside / np.where(whole > 0, whole, 1), share)
        energy[np.isnan(share)] = np.nan
        return {"energy": energy, "energy-gain": energy / share}


@dataclass(frozen=True)
class Localization(Metric):
    """MaxBoxAccV2: accuracy of the boxes of connected components at the best threshold of the data set.

    A map is scaled to [0, 1]. At each of 40 thresholds t = 0, 0.025, ... the cells of a grid of 28, or 56 for finer
    maps, with values above t form components, by 8 neighbors, and the best intersection over union (IoU) of any
    component's box with any box of the object is kept: the curve. For IoU >= 0.3, 0.5 and 0.7 each, the threshold is
    that with most hits over all images, the lowest of several; the column is an image's mean hit over the three, its
    mean over images MaxBoxAccV2. The thresholds depend on all images of a method; intervals take them as fixed. The
    authors search contours, which include holes, at the size of the frame, with 1,000 thresholds. The component of a
    constant map is the frame. Maps of many small components have many candidates. Choe et al. 2020.
    """

    name = "localization"
    columns = (Column("localization", "Localization (MaxBoxAccV2)", True),)
    curves = (Curve("localization-iou", "Localization by threshold", "Threshold", "Best IoU with a box"),)
    needs_boxes = True
    definition = "mean over IoU 0.3, 0.5, 0.7 of the share of images with a component's box of that IoU, best threshold"
    paper = "Choe et al. 2020, arXiv:2007.04178"

    def points(self, curve: str) -> Floats:
        return np.arange(THRESHOLDS) / THRESHOLDS

    def values(self, ask: Inquiry) -> Values:
        boxes = boxes_of(ask.batch)
        best = np.full((len(ask), THRESHOLDS), np.nan)
        if len(boxed := np.flatnonzero(boxes.counts)):
            best[boxed] = 0
            cells = _normalized(ask.maps[boxed])
            number, threshold, corners = _components(cells)
            image = boxed[number]
            # each component with each box of its image; the boxes of an image follow one another
            repeats = boxes.counts[image]
            component = np.repeat(np.arange(len(image)), repeats)
            turn = np.arange(len(component)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            box = (np.cumsum(boxes.counts) - boxes.counts)[image[component]] + turn
            overlap = _overlaps(corners[:, component] * (ask.batch.size / cells.shape[1]), boxes.corners.T[:, box])
            np.maximum.at(best.reshape(-1), image[component] * THRESHOLDS + threshold[component], overlap)
        return {"localization": np.full(len(ask), np.nan), "localization-iou": best}

    def finish(self, values: Values) -> Values:
        curve, accuracy = values["localization-iou"], np.full(len(values["localization"]), np.nan)
        boxed = ~np.isnan(curve[:, 0])
        if boxed.any():
            hits = curve[boxed, :, None] >= np.array(LEVELS)
            best = hits.mean(axis=0).argmax(axis=0)
            accuracy[boxed] = hits[:, best, np.arange(len(LEVELS))].mean(axis=1)
        return {**values, "localization": accuracy}


def _normalized(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Maps (B, c, c) float32 on a grid, each with its minimum as 0 and maximum as 1; a constant one is 1 everywhere."""
    # in float64 a range is never infinite
    side = COARSE if max(maps.shape[1:]) <= COARSE else FINE
    cells = enlarged(torch.from_numpy(maps), side).numpy().astype(np.float64)
    low, high = cells.min(axis=(1, 2), keepdims=True), cells.max(axis=(1, 2), keepdims=True)
    scaled = (cells - low) / np.where(high > low, high - low, 1)
    return np.where(high > low, scaled, 1).astype(np.float32)


def _components(
    cells: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """The connected components of maps (B, c, c) in [0, 1] at all thresholds.

    Returns:
        map (C,), threshold (C,) and box (4, C), x0, y0, x1, y1 in cells, of each of C components.
    """
    # all maps at all thresholds in one tall picture, with an empty row below each: one search for all of them, whose
    # outlines are several times as fast as connectedComponentsWithStats
    side = cells.shape[1]
    tall = np.zeros((len(cells), THRESHOLDS, side + 1, side), np.uint8)
    steps = np.arange(THRESHOLDS, dtype=np.float32)[:, None, None] / THRESHOLDS
    np.greater(cells[:, None], steps, out=tall[:, :, :side].view(np.bool_))
    outlines, levels = cv2.findContours(tall.reshape(-1, side), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # those within another one are holes
    outlines = list(compress(outlines, levels[0, :, 3] < 0))
    points = np.concatenate(outlines)[:, 0].astype(np.int64)
    starts = np.cumsum([0, *map(len, outlines[:-1])])
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts) + 1
    picture = low[:, 1] // (side + 1)
    corners = np.concatenate([low, high], axis=1).T.astype(np.float64)
    corners[1::2] -= picture * (side + 1)
    number, threshold = np.divmod(picture, THRESHOLDS)
    return number, threshold, corners


def _overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union (M,) of M pairs of boxes (4, M)."""
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


@dataclass(frozen=True)
class RelevanceRankAccuracy(Metric):
    """Relevance rank accuracy: share of the K most salient pixels that are in the boxes, which have K pixels.

    The map is enlarged first; of equal values the first in rows are taken. Random maps have the boxes' share of the
    frame. Arras et al. 2022, who compare with masks.
    """

    name = "relevance-rank-accuracy"
    columns = (Column("rank-accuracy", "Relevance rank accuracy", True),)
    needs_boxes = True
    definition = "share of the K most salient pixels that are in the boxes; K = number of pixels of the boxes"
    paper = "Arras et al. 2022, arXiv:2003.07258"

    def values(self, ask: Inquiry) -> Values:
        boxes = boxes_of(ask.batch)
        accuracy = np.full(len(ask), np.nan)
        saliency = ask.enlarged.flatten(1).numpy()
        for image in np.flatnonzero(boxes.counts).tolist():
            accuracy[image] = _share_of_first(saliency[image], boxes.union[image].reshape(-1), int(boxes.area[image]))
        return {"rank-accuracy": accuracy}


def _share_of_first(saliency: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], count: int) -> float:
    """Share of the `count` greatest values, of equal ones the first, that are inside; without sorting them all."""
    least, others = saliency.min(), saliency
    # on a plateau of lowest values, as a ReLU leaves it, partition takes ten times as long
    if np.count_nonzero(saliency == least) > len(saliency) // 50:
        others = saliency[saliency > least]
    if len(others) > count:
        least = np.partition(others, len(others) - count)[len(others) - count]
    greater = saliency > least
    equal = np.flatnonzero(saliency == least)[: count - np.count_nonzero(greater)]
    return float(np.count_nonzero(greater & inside) + np.count_nonzero(inside[equal])) / count
