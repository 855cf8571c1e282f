"""Boxes of objects in the frames of stored images, from those of the original images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.images.fit import boxes_in_frame
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.schema import SOURCE_SIZE

Boxes = npt.NDArray[np.float64]


def frame_boxes(folder: ShardFolder, positions: Positions, fit: str) -> list[Boxes]:
    """Boxes of some images in pixels of their frames.

    Args:
        folder: the shards.
        positions: (B,) int64.
        fit: how an image became a frame, one of `images.fit.FITS`.

    Returns:
        For each image (n, 4) float64, x0, y0, x1, y1 in [0, S], as `boxes_in_frame`; n is 0 where it has none.

    Raises:
        IntegrityError: a shard is damaged; names it.
    """
    boxes: list[Boxes] = [np.empty((0, 4))] * len(positions)
    if folder.header.boxes:
        for shard, places, rows in folder.group(positions):
            sizes = shard.read(SOURCE_SIZE, rows)
            for place, row, (height, width) in zip(places.tolist(), rows.tolist(), sizes.tolist(), strict=True):
                boxes[place] = boxes_in_frame(shard.boxes(row), (height, width), folder.header.size, fit)
    return boxes
