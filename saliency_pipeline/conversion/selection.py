"""Images and methods of shards that an export takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.conversion.config import ConvertConfig
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.gallery.selection import label_of
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.shards.methods import stored_method
from saliency_pipeline.shards.reader import Positions, ShardFolder


def chosen_positions(data: ShardFolder, chosen: ConvertConfig) -> Positions:
    """Positions of the images of the requested splits and classes, int64 (n,), in rising order.

    Raises:
        SalpipeError: an unknown class, or there is no such image.
        IntegrityError: a shard is damaged.
    """
    wanted: npt.NDArray[np.bool_] = np.ones(len(data), np.bool_)
    if chosen.splits:
        wanted &= np.isin(data.splits, [SPLITS[name] for name in chosen.splits])
    if chosen.classes:
        wanted &= np.isin(data.labels, [label_of(data, name) for name in chosen.classes])
    if not wanted.any():
        requested = ", ".join([*chosen.splits, *chosen.classes])
        reason = f"of {requested}; choose another --split or --class" if len(data) else "at all"
        raise SalpipeError(f"{data.path} holds no images {reason}")
    return np.flatnonzero(wanted)


def chosen_methods(data: ShardFolder, chosen: ConvertConfig) -> tuple[str, ...]:
    """Names of the requested methods as stored, sorted.

    Raises:
        SalpipeError: no maps of one of them are stored.
    """
    return tuple(sorted({stored_method(data, name) for name in chosen.methods})) if chosen.methods else data.methods
