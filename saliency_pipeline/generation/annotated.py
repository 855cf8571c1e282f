"""What comes with the images from elsewhere: boxes of their objects and ready maps, as shards store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.images.decode import Decoded
from saliency_pipeline.images.orientation import upright_box
from saliency_pipeline.images.ready_maps import grid_of, read_frame_map
from saliency_pipeline.images.record import Box, ImageRecord, RawMaps
from saliency_pipeline.saliency.methods.registry import GIVEN, is_given
from saliency_pipeline.shards.methods import description
from saliency_pipeline.shards.schema import MapShape, ShardHeader, is_method_name
from saliency_pipeline.text import shown

BOXES, MAPS = "boxes", "maps"
"""Entries of the provenance's `data`, where boxes are from a file and maps from a folder."""


def described_maps(data: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """Descriptions of maps from elsewhere in every shard, as of methods, by their names; empty if there are none.

    Those of an export keep the description that its provenance has, with the class that was explained.

    Args:
        data: the provenance's entry on the data set.
    """
    if MAPS not in data:
        return {}
    if "methods" in data[MAPS]:
        origin = data[MAPS]["provenance"]
        target = Provenance.from_json(origin).target
        return {
            f"{GIVEN}:{method}": {**description(origin, method), "method": method, "target": target}
            for method in data[MAPS]["methods"]
        }
    plain: dict[str, object] = {
        "level": "image",
        "convention": "maps from elsewhere, divided by their maximum and resized by area to a quarter of the frame",
        "paper": "made elsewhere",
        "class_agnostic": True,
    }
    return {GIVEN: plain}


def computed(methods: Iterable[str]) -> list[str]:
    """The names of methods that are computed, of all those of a shard."""
    return [name for name in methods if not is_given(name)]


def given_shapes(data: Mapping[str, Any], size: int) -> dict[str, MapShape]:
    """Shapes of the maps from elsewhere, by their names; empty if there are none.

    Args:
        data: the provenance's entry on the data set.
        size: side of the frame in pixels.

    Raises:
        SalpipeError: the name of an export's method is too long.
    """
    if MAPS not in data:
        return {}
    if "methods" not in data[MAPS]:
        return {GIVEN: MapShape(1, grid_of(size), grid_of(size))}
    shapes = {f"{GIVEN}:{method}": MapShape(*shape) for method, shape in data[MAPS]["methods"].items()}
    if wrong := [name for name in shapes if not is_method_name(name)]:
        raise SalpipeError(f"--maps-from: {shown(wrong[0])} is not a possible name of maps; leave --maps-from out")
    return shapes


def given_maps(
    record: ImageRecord,
    source_size: tuple[int, int],
    header: ShardHeader,
    config: GenerateConfig,
    same_network: bool,
) -> RawMaps:
    """The maps from elsewhere of an image, by their names in shards.

    Of a folder, a map (1, G, G) in [0, 1], zeros if it has none, see `read_frame_map`; of an export, its raw maps, with
    the explained classes if the source model is the one that made them (`same_network`), and otherwise -1.

    Raises:
        BadImageError: a map cannot be used.
        OSError: a map cannot be read.
    """
    if record.maps is None or not record.map_path:
        size = header.size
        values = np.zeros((grid_of(size), grid_of(size)), np.float32)
        if record.map_path:
            values = read_frame_map(record.map_path, source_size, size, config.fit, max_pixels=config.max_pixels)
        return RawMaps({GIVEN: values[None]}, {GIVEN: np.array([-1], np.int32)}, False)
    raw = record.maps.read()
    return RawMaps(
        {f"{GIVEN}:{method}": values for method, values in raw.maps.items()},
        {f"{GIVEN}:{method}": row if same_network else np.full_like(row, -1) for method, row in raw.targets.items()},
        raw.seen,
    )


def made_by_source(header: ShardHeader) -> bool:
    """True if the source model of a run is the one that made the maps of the export that are stored as well."""
    origin = header.provenance["data"].get(MAPS, {}).get("provenance")
    made_by = None if origin is None else Provenance.from_json(origin).source.get("weights_sha256")
    return made_by is not None and made_by == header.provenance["source"].get("weights_sha256")


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
