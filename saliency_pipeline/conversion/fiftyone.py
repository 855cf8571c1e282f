"""FiftyOne's dataset on disk: samples with their classes and heat maps. FiftyOne itself is not needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.conversion.names import distinct, sample_name, target_names
from saliency_pipeline.conversion.output import OutputFiles
from saliency_pipeline.conversion.samples import Sample, explained_class
from saliency_pipeline.figures.pictures import png
from saliency_pipeline.files import write_atomically
from saliency_pipeline.shards.methods import is_signed
from saliency_pipeline.shards.reader import ShardFolder

SAMPLES, METADATA, IMAGES, MAPS = "samples.json", "metadata.json", "data", "fields"
ZERO = 128
"""Level of 0 in maps of a signed method; others have 0 there."""

_OWN_FIELDS = ("filepath", "tags", "metadata", "key", "ground_truth", "prediction", "id")


def write_fiftyone(folder: Path, data: ShardFolder, samples: Iterable[Sample]) -> tuple[Path, int]:
    """Write `samples.json` and `metadata.json`, which `fiftyone.types.FiftyOneDataset` reads, images and maps.

    A sample has `ground_truth` and `prediction` (Classification), its split as a tag, and a Heatmap per map, an 8-bit
    PNG file of the map divided by its scale. Paths of images are relative; those of heat maps are absolute, since
    FiftyOne resolves none but those of images.

    Returns:
        `samples.json`, and the number of heat maps.

    Raises:
        SalpipeError: the disk is full or cannot be written.
        IntegrityError: a shard is damaged.
    """
    fields = field_names(data)
    lines: list[dict[str, Any]] = []
    heat_maps = 0
    with OutputFiles(folder, listed=False) as output:
        for sample in samples:
            name = sample_name(sample.position)
            output.write(f"{IMAGES}/{name}.{sample.suffix}", sample.image)
            entry: dict[str, Any] = {
                "filepath": f"{IMAGES}/{name}.{sample.suffix}",
                "tags": [sample.split] if sample.split else [],
                "metadata": None,
                "_media_type": "image",
                "key": sample.key,
            }
            if sample.label >= 0:
                entry["ground_truth"] = {"_cls": "Classification", "tags": [], "label": sample.class_name}
            predicted, score = (sample.facts["prediction"][part][0] for part in ("class", "score"))
            if label := explained_class(data, predicted):
                entry["prediction"] = {"_cls": "Classification", "tags": [], "label": label, "confidence": score}
            for method, maps in sample.maps.items():
                numbers = sample.facts["saliency"][method]
                signed = is_signed(data.provenance, method)
                for field, values, scale in zip(fields[method], maps, numbers["scale"], strict=True):
                    path = f"{MAPS}/{field}/{name}.png"
                    output.write(path, _heat_map(values, scale, signed))
                    absolute = os.path.abspath(folder / path)
                    entry[field] = {"_cls": "Heatmap", "tags": [], "map_path": absolute, "range": [0, 255]}
                    heat_maps += 1
            lines.append(entry)
        output.publish()
    classes = {"ground_truth": list(data.classes)} if data.classes else {}
    info = {"provenance": data.provenance, "methods": {field: m for m, names in fields.items() for field in names}}
    metadata = {"media_type": "image", "classes": classes, "info": info}
    write_atomically(folder / METADATA, json.dumps(metadata, allow_nan=False) + "\n")
    write_atomically(folder / SAMPLES, json.dumps({"samples": lines}, allow_nan=False) + "\n")
    return folder / SAMPLES, heat_maps


def field_names(data: ShardFolder) -> dict[str, list[str]]:
    """Fields of the maps by method, one per target: identifiers, as FiftyOne requires."""
    names = [re.sub(r"[^a-z0-9]+", "_", method.lower()).strip("_") for method in data.methods]
    names = distinct([name if name[:1].isalpha() else f"map_{name}" for name in names], "_", taken=_OWN_FIELDS)
    return target_names({method: data.header.maps[method].targets for method in data.methods}, names, "_target_")


def _heat_map(values: npt.NDArray[np.float32], scale: float, signed: bool) -> bytes:
    """A map (h, w) as an 8-bit gray PNG."""
    share = values.astype(np.float64) / (scale or 1)
    levels = ZERO + 127 * share if signed else 255 * share
    return png(np.rint(levels).clip(0, 255).astype(np.uint8))
