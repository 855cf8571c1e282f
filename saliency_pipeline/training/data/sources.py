"""Sources of maps other than the methods of the shards: the true boxes (`--maps oracle`) and a run's own baseline."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.methods.registry import GIVEN
from saliency_pipeline.shards.boxes import Boxes, frame_boxes
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO

LEAST_MARKED = 0.9
"""Least share of the images that have a box, so that the gain of maps of boxes is that of perfect maps."""

Floats = npt.NDArray[np.float32]


class MapSource(Protocol):
    """Maps of the images of a folder of shards, one per image."""

    @property
    def signed(self) -> bool:
        """True if values below 0 speak against the class."""

    @property
    def record(self) -> dict[str, Any]:
        """What decides the maps, for the run's provenance."""

    def prepare(self, positions: Positions, device: torch.device, progress: Progress) -> None:
        """Make the maps of some images (n,) that are missing, or refuse them if they cannot be made."""

    def at(self, positions: Positions) -> Floats:
        """Raw maps of some images (B,) that are prepared: float32 (B, h, w)."""

    def marked(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Return which images (n,) that are prepared have a map that is not 0 everywhere, bool (n,)."""


class OracleMaps:
    """Ground truth as maps: 1 inside the boxes of an image, 0 elsewhere, at the size of the frame.

    A pixel at the border of a box has the share of it that is inside; of several boxes the largest counts. Where the
    shards hold no boxes but masks from elsewhere (`--maps-from`), the maps are these, with values in [0, 1].

    Raises:
        SalpipeError: the shards hold neither.
    """

    signed = False

    def __init__(self, pairs: ShardFolder) -> None:
        if not pairs.header.boxes and GIVEN not in pairs.methods:
            raise SalpipeError(
                f"--maps oracle: {pairs.path} holds no boxes of objects; generate it again with 'salpipe generate "
                "--boxes FILE', or with masks (--maps-from FOLDER)"
            )
        settings = Provenance.from_json(pairs.provenance).settings
        self.pairs, self.fit = pairs, settings.fit if settings else "crop"

    @property
    def record(self) -> dict[str, Any]:
        """Origin of the maps."""
        return {"oracle": "boxes" if self.pairs.header.boxes else GIVEN}

    def prepare(self, positions: Positions, device: torch.device, progress: Progress) -> None:
        """Nothing has to be made; see `check`."""
        self.check()

    def check(self) -> None:
        """Check that there are boxes: of the shards as a whole, so that all runs on them agree.

        Raises:
            SalpipeError: more than 10 % of the labeled images, or of all where none is labeled, have none in their
                frame.
        """
        labeled = np.flatnonzero(self.pairs.labels >= 0)
        positions = labeled if len(labeled) else np.arange(len(self.pairs))
        marked, count = int(self.marked(positions).sum()), len(positions)
        kind, remedy = ("box", "--boxes FILE") if self.pairs.header.boxes else ("mask", "--maps-from FOLDER")
        if marked < LEAST_MARKED * count:
            raise SalpipeError(
                f"--maps oracle: {marked:,} of {count:,} images have a {kind} in {self.pairs.path}, fewer than "
                f"{LEAST_MARKED:.0%}; generate it again with those of the others ('salpipe generate {remedy}')"
            )

    def marked(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """True for images whose map marks something, bool (n,)."""
        if self.pairs.header.boxes:
            return np.array([len(boxes) > 0 for boxes in frame_boxes(self.pairs, positions, self.fit)], np.bool_)
        marked: npt.NDArray[np.bool_] = self.pairs.flags(GIVEN)[positions] & ALL_ZERO == 0
        return marked

    def at(self, positions: Positions) -> Floats:
        """Maps of some images in [0, 1]: float32 (B, S, S) of boxes, (B, h, w) of masks."""
        if self.pairs.header.boxes:
            size = self.pairs.header.size
            return np.stack([marked_area(boxes, size) for boxes in frame_boxes(self.pairs, positions, self.fit)])
        stored = self.pairs.stored_maps_at(positions, GIVEN).astype(np.float32)
        return stored * self.pairs.scales_at(positions, GIVEN)[:, None, None]


def marked_area(boxes: Boxes, size: int) -> Floats:
    """Share of every pixel of a frame that is inside a box, of several the largest: float32 (size, size) in [0, 1].

    >>> marked_area(np.array([[0.0, 1.0, 1.5, 3.0]]), 3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]
    """
    area = np.zeros((size, size), np.float32)
    pixels = np.arange(size)
    for left, top, right, bottom in boxes.tolist():
        down, across = (
            np.clip(np.minimum(pixels + 1, end) - np.maximum(pixels, start), 0, 1)
            for start, end in ((top, bottom), (left, right))
        )
        np.maximum(area, np.outer(down, across), out=area)
    return area
