"""What comes with the images from elsewhere: boxes of their objects and ready maps, as shards store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.images.decode import Decoded
from saliency_pipeline.images.orientation import upright_box
from saliency_pipeline.images.ready_maps import Map, grid_of, read_frame_map
from saliency_pipeline.images.record import Box, ImageRecord
from saliency_pipeline.saliency.methods.registry import GIVEN
from saliency_pipeline.shards.schema import MapShape

BOXES, MAPS = "boxes", "maps"
"""Entries of the provenance's `data`, where boxes are from a file and maps from a folder."""


def described_maps() -> dict[str, object]:
    """Description of maps from elsewhere in every shard, as of a method."""
    return {
        "level": "image",
        "convention": "maps from elsewhere, divided by their maximum and resized by area to a quarter of the frame",
        "paper": "made elsewhere",
        "class_agnostic": True,
    }


def computed(methods: Iterable[str]) -> list[str]:
    """The names of methods that are computed, of all those of a shard."""
    return [name for name in methods if name != GIVEN]


def given_shape(data: Mapping[str, Any], size: int) -> dict[str, MapShape]:
    """Shape of the maps from elsewhere, by their name; empty if there are none.

    Args:
        data: the provenance's entry on the data set.
        size: side of the frame in pixels.
    """
    return {GIVEN: MapShape(1, grid_of(size), grid_of(size))} if MAPS in data else {}


def given_map(record: ImageRecord, source_size: tuple[int, int], size: int, config: GenerateConfig) -> Map:
    """The map (G, G) of an image, zeros if it has none; see `read_frame_map`.

    Raises:
        BadImageError: the map cannot be used.
    """
    if not record.map_path:
        return np.zeros((grid_of(size), grid_of(size)), np.float32)
    return read_frame_map(record.map_path, source_size, size, config.fit, max_pixels=config.max_pixels)


def upright_boxes(record: ImageRecord, decoded: Decoded, *, check: bool) -> tuple[Box, ...]:
    """The boxes of an image in pixels of the upright image.

    They are in pixels of the image as stored in its file, unless their file states the size of the upright image.

    Args:
        record: the image.
        decoded: its decoded file.
        check: whether they are clipped to the image.

    Raises:
        BadImageError: they are those of an image of another size, or if `check`, one lies outside the image.
    """
    height, width = decoded.size
    stored = (height, width) if decoded.orientation >= 5 else (width, height)
    stated = record.boxes_size or stored
    if stated not in (stored, (width, height)):
        raise BadImageError(
            f"its boxes are those of an image of {stated[0]} x {stated[1]} pixels, and it has {stored[0]} x {stored[1]}"
        )
    orientation = decoded.orientation if stated == stored else 1
    boxes = []
    for box in record.boxes:
        x0, y0, x1, y1 = upright_box(box, decoded.size, orientation)
        if check:
            x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
            if x0 >= x1 or y0 >= y1:
                raise BadImageError(f"its box {', '.join(map(str, box))} lies outside the {width} x {height} image")
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)
