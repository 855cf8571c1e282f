"""Folders of PNG files: images by split and class, and their maps as NPY or 16-bit PNG files of the same names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saliency_pipeline.conversion.description import Description
from saliency_pipeline.conversion.names import safe_name, target_names, unique_names
from saliency_pipeline.conversion.output import FileEntry, OutputFiles
from saliency_pipeline.conversion.samples import Sample, npy
from saliency_pipeline.datasets.exported_maps import LEVELS
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.pictures import png
from saliency_pipeline.images.keys import stem
from saliency_pipeline.shards.methods import is_signed
from saliency_pipeline.shards.schema import ShardHeader, to_json
from saliency_pipeline.tables import write_table
from saliency_pipeline.text import shown

IMAGES, MAPS, SAMPLES, TABLE = "images", "maps", "samples", "manifest.csv"
"""Folders of the images, of the maps and of the lists of samples, one per shard; and the table of all images."""

COLUMNS = ("file", "key", "label", "class", "split", "predicted", "score")

_UNLABELED, _NO_SPLIT = "unlabeled", "none"


def map_folders(header: ShardHeader, maps_as: str) -> dict[str, list[str]]:
    """Folders of the maps by method, in the folder `maps`: one, or one per explained class; all have other names.

    Raises:
        SalpipeError: maps with negative values as PNG.
    """
    signed = [method for method in header.maps if is_signed(header.provenance, method)]
    if maps_as == "png" and signed:
        raise SalpipeError(
            f"--maps-as png: maps of {', '.join(signed)} have negative values, which a gray PNG cannot store; use "
            "--maps-as npy, or choose other methods (--method)"
        )
    names = unique_names([method.replace(":", "-") for method in header.maps])
    return target_names({method: shape.targets for method, shape in header.maps.items()}, names)


class Folders:
    """The folders of images: `<split>/<class>`, without the split if no image has one.

    Args:
        classes: class names in label order.
        splits: whether there are splits.
    """

    def __init__(self, classes: Sequence[str], splits: bool) -> None:
        self._classes = unique_names([*classes, _UNLABELED]) if classes else []
        self._splits = splits

    def path(self, sample: Sample) -> str:
        """Path of an image without suffix, '/' separated: safe, and different for each image."""
        folders = [sample.split or _NO_SPLIT] if self._splits else []
        if self._classes:
            folders.append(self._classes[sample.label])
        return "/".join([*folders, f"{safe_name(stem(sample.key))}-{sample.position:08d}"])


def write_folders(
    folder: Path, number: int, samples: Iterable[Sample], description: Description, folders: Folders
) -> tuple[FileEntry, ...]:
    """Write the images and maps of one shard, and the list of its samples.

    Raises:
        SalpipeError: the disk is full or cannot be written, or a map of `--maps-as png` has negative values.
        IntegrityError: the shard is damaged.
    """
    lines: list[str] = []
    with OutputFiles(folder) as output:
        for sample in samples:
            path = folders.path(sample)
            file = f"{IMAGES}/{path}.{sample.suffix}"
            output.write(file, sample.image)
            for place, data in _map_files(sample, description):
                output.write(f"{MAPS}/{place}/{path}.{description.config.maps_as}", data)
            lines.append(to_json({"file": file, **sample.facts}) + "\n")
        output.write(f"{SAMPLES}/shard-{number:05d}.jsonl", "".join(lines).encode(), images=len(lines))
        return output.publish()


def write_manifest(folder: Path, samples: Iterable[dict[str, object]]) -> None:
    """Write `manifest.csv`, one row per image, from the lists of samples."""

    def row(facts: dict[str, object]) -> Sequence[object]:
        prediction = facts["prediction"]
        assert isinstance(prediction, dict)
        return [*(facts[name] for name in COLUMNS[:5]), prediction["class"][0], prediction["score"][0]]

    write_table(folder / TABLE, COLUMNS, map(row, samples))


def _map_files(sample: Sample, description: Description) -> Iterator[tuple[str, bytes]]:
    """Folder and file of every map of an image."""
    for method, names in description.map_folders.items():
        scales = sample.facts["saliency"][method]["scale"]
        for name, values, scale in zip(names, sample.maps[method], scales, strict=True):
            if description.config.maps_as == "npy":
                yield name, npy(values)
            elif values.min() < 0:
                raise SalpipeError(
                    f"--maps-as png: the map of {shown(sample.key)} by {method} has negative values; use --maps-as npy"
                )
            else:
                yield name, gray_png(values, scale)


def gray_png(values: npt.NDArray[np.float32], scale: float) -> bytes:
    """A map (h, w) with values from 0 to its scale as a 16-bit gray PNG.

    A value is level / LEVELS * scale, off by at most scale / (2 * LEVELS).
    """
    levels = np.rint(values.astype(np.float64) * (LEVELS / scale if scale else 0)).clip(0, LEVELS).astype(np.uint16)
    return png(levels)
