"""The maps that are assessed: those in the shards, and those of floors, which are computed where none are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.floors import computed_maps
from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Network
from saliency_pipeline.assessment.measured import FLOORS, Assessed
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.shards.boxes import frame_boxes
from saliency_pipeline.shards.methods import is_class_agnostic, is_signed, parsed, stored_method
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.schema import PREDICTED
from saliency_pipeline.shards.shard import Shard


@dataclass(frozen=True)
class AssessedMaps:
    """Maps of some methods for the images of a folder of shards.

    Attributes:
        folder: the shards.
        methods: the methods, those of the shards first.
        reference: the stored method whose target is the explained class of every image; None: the predicted class.
        fit: how an image became a frame.
    """

    folder: ShardFolder
    methods: tuple[Assessed, ...]
    reference: str | None
    fit: str

    @classmethod
    def of(cls, folder: ShardFolder, requested: Sequence[str], fit: str) -> AssessedMaps:
        """The maps of the requested methods, or of all that are stored, and of the floors.

        Raises:
            SalpipeError: no maps of a requested method are stored.
        """
        names = tuple(dict.fromkeys(stored_method(folder, text) for text in requested)) or folder.methods
        # also of methods that are not requested, so that maps of no class are asked about the same class with them
        specific = [name for name in (*names, *folder.methods) if not is_class_agnostic(folder.provenance, name)]
        methods = [_assessed(folder.provenance, name) for name in names]
        computed = set(FLOORS) - {method.name.partition(":")[0] for method in methods}
        methods += [
            Assessed(find_methods([name])[0].canonical, True, False, False, False, 0.0)
            for name in FLOORS
            if name in computed
        ]
        return cls(folder, tuple(methods), specific[0] if specific else None, fit)

    def batch(self, positions: Positions, network: Network | None, frames: bool) -> ImageBatch:
        """The images at some positions.

        Args:
            positions: (B,) int64.
            network: the source model, where metrics need it.
            frames: whether the frames are read; without them there are none, but their size.

        Raises:
            IntegrityError: a shard is damaged; names it.
        """
        folder, count, size = self.folder, len(positions), self.folder.header.size
        targets = np.full(count, -1, np.int64)
        for shard, places, rows in folder.group(positions):
            targets[places] = self._targets(shard, rows)
        boxes = frame_boxes(folder, positions, self.fit)
        pixels = folder.images_at(positions) if frames else np.empty((0, size, size, 3), np.uint8)
        return ImageBatch(folder.keys_at(positions), pixels, targets, folder.labels_at(positions), boxes, network)

    def maps(self, method: Assessed, positions: Positions, batch: ImageBatch) -> Floats:
        """Maps (B, h, w) float32 of a method for the images of a batch; of several targets the first one's."""
        if method.stored:
            stored = self.folder.stored_maps_at(positions, method.name).astype(np.float32)
            return stored * self.folder.scales_at(positions, method.name)[:, None, None]
        return computed_maps(find_methods([method.name])[0], batch.frames, batch.keys)

    @property
    def computes_floors(self) -> bool:
        """True if frames are needed for maps that are not stored."""
        return any(not method.stored for method in self.methods)

    def _targets(self, shard: Shard, rows: Positions) -> npt.NDArray[np.int64]:
        if self.reference is not None:
            return shard.targets(self.reference, rows)[:, 0].astype(np.int64)
        return shard.read(PREDICTED, rows)[:, 0].astype(np.int64)


def explainable(methods: Sequence[Assessed], note: Callable[[str], None]) -> tuple[Method, ...]:
    """The methods that can explain other frames: not maps from elsewhere, nor methods that are not installed here."""
    able: list[Method] = []
    for method in methods:
        try:
            able += find_methods([method.name])
        except SalpipeError:
            note(f"{method.name}: cannot explain changed frames here, so that metrics of these leave it out")
    return tuple(able)


def _assessed(provenance: dict[str, Any], name: str) -> Assessed:
    try:
        method = find_methods([name])[0]
        # one pass is shared by all methods that need the network
        cost: float | None = method.cost + (method.needs != Need.NOTHING)
    except SalpipeError:
        cost = None
    specific = not is_class_agnostic(provenance, name)
    return Assessed(name, parsed(name)[0] in FLOORS, True, is_signed(provenance, name), specific, cost)
