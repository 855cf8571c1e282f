"""The background: images of the data set that some methods compare every image with, the same for all of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets.hash_sampling import hashes

IMAGES = 64
"""Maximum number of its images."""

Frames = npt.NDArray[np.uint8]

EMPTY: Frames = np.empty((0, 0, 0, 3), np.uint8)


def sample_background(candidates: Iterable[ImageRecord], decode: Callable[[ImageRecord], Frames]) -> Frames:
    """The background of a data set, uint8 (M, S, S, 3): the first usable images.

    Args:
        candidates: records of the data set, see `background_candidates`.
        decode: the frame of an image; raises BadImageError or OSError if that cannot be used.

    Returns:
        The frames; none if no image can be used.
    """
    frames: list[Frames] = []
    for record in candidates:
        if len(frames) == IMAGES:
            break
        try:
            frames.append(decode(record))
        except (BadImageError, OSError):
            continue
    return np.stack(frames) if frames else EMPTY


def background_candidates(catalogue: Catalogue, limit: int) -> tuple[ImageRecord, ...]:
    """At most `limit` records in the order in which they are taken for the background of a data set."""
    order = background_order([r.key for r in catalogue.records], [r.split for r in catalogue.records])
    return tuple(catalogue.records[place] for place in order[:limit].tolist())


def background_order(keys: Sequence[str], splits: Sequence[int] | npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Positions of images in the order in which they are taken for a background: by a hash of their keys.

    Where there are splits, training images alone are taken, so that no map depends on a test image.
    """
    order = np.argsort(hashes(0, "background", keys), kind="stable")
    parts = np.asarray(splits, np.int64)[order]
    training = order[parts == Split.TRAIN]
    return training if len(training) else order


def background_of(pairs: ShardFolder) -> Frames:
    """The background of the data set whose images shards hold, as `sample_background` returned it."""
    order = background_order(pairs.keys(), pairs.splits)[:IMAGES]
    return np.stack([pairs[place].image for place in order.tolist()]) if len(order) else EMPTY


def describe_background(frames: Frames) -> dict[str, Any]:
    """Number and SHA-256 of the frames, as the provenance has them."""
    return {"images": len(frames), "sha256": hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()}
