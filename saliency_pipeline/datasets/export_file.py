"""`export.json` of an export of `salpipe convert`: its name, and reading it without trusting it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.documents import DocumentError, open_regular, read_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name
from saliency_pipeline.text import shown

EXPORT = "export.json"
FORMAT, VERSION = "salpipe-export", "1.0"

KINDS = ("webdataset", "parquet", "png")
"""Formats of an export."""

_MAX_CLASSES, _MAX_SIDE, _MAX_VALUES = 2**20, 2**14, 2**28
_BLOCK = 2**20


@dataclass(frozen=True)
class Export:
    """What all images of an export have in common.

    Attributes:
        kind: one of `KINDS`.
        classes: class names in label order.
        size: height and width of the images in pixels.
        images: number of images.
        maps: (T, h, w) of the maps of each method, sorted by method.
        provenance: how the maps were made.
        maps_as: `npy` or `png`, for the kind png.
        map_folders: folders of maps by method, for the kind png.
    """

    kind: str
    classes: tuple[str, ...]
    size: int
    images: int
    maps: Mapping[str, tuple[int, int, int]]
    provenance: dict[str, Any]
    maps_as: str
    map_folders: Mapping[str, tuple[str, ...]]


def is_export(folder: Path | str) -> bool:
    """True if a folder is a finished export of `salpipe convert`: other tools write files of that name, too.

    Raises:
        SalpipeError: the file cannot be read.
    """
    path, wanted = os.path.join(folder, EXPORT), FORMAT.encode()
    if not os.path.isfile(path):
        return False
    with file_errors_explained(path), open(path, "rb", opener=open_regular) as file:
        end = b""
        while block := file.read(_BLOCK):
            if wanted in end + block:
                return True
            end = block[-len(wanted) :]
    return False


def read_export_file(folder: Path | str) -> Export:
    """Read `export.json`.

    Raises:
        SalpipeError: it is missing, damaged or of a newer version.
    """
    path = Path(folder) / EXPORT
    try:
        return _parse(read_json(path))
    except FileNotFoundError:
        raise SalpipeError(f"{shown(path)}: no such file; run the same 'salpipe convert' again to finish it") from None
    except (OSError, DocumentError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = shown(str(error)[:200])
        raise SalpipeError(f"{shown(path)}: damaged ({reason}); run 'salpipe convert' again") from error


def _parse(data: Any) -> Export:
    if data["format"] != FORMAT:
        raise ValueError(f"format is {data['format']!r:.40}")
    if str(data["format_version"]).partition(".")[0] != VERSION.partition(".")[0]:
        raise ValueError(f"format {data['format_version']!r:.20} is newer than this salpipe can read; upgrade salpipe")
    kind, classes, size, images = (data[name] for name in ("kind", "classes", "size", "images"))
    provenance = data["provenance"]
    if kind not in KINDS or type(size) is not int or not 1 <= size <= _MAX_SIDE or not isinstance(provenance, dict):
        raise ValueError("its kind, size or provenance is impossible")
    if type(images) is not int or not 0 <= images < 2**63:
        raise ValueError("its number of images is impossible")
    if not isinstance(classes, list) or len(classes) > _MAX_CLASSES or not all(isinstance(c, str) for c in classes):
        raise ValueError("classes is not a list of names")
    if len(set(map(class_name, classes))) < len(classes):
        raise ValueError("two classes have the same name")
    maps = {}
    for method, shape in sorted(data["maps"].items()):
        sides = tuple(shape[name] for name in ("targets", "height", "width"))
        if not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in sides):
            raise ValueError(f"the shape of the maps of {method!r:.60} is impossible")
        if sides[0] * sides[1] * sides[2] > _MAX_VALUES:
            raise ValueError(f"the maps of {method!r:.60} have too many cells")
        maps[method] = sides
    folders = {method: tuple(map(str, names)) for method, names in data.get("map_folders", {}).items()}
    if kind == "png":
        for method, shape in maps.items():
            if len(folders[method]) != shape[0] or any("/" in name or not is_inside(name) for name in folders[method]):
                raise ValueError(f"the folders of the maps of {method!r:.60} are impossible")
    return Export(kind, tuple(classes), size, images, maps, provenance, str(data.get("maps_as", "npy")), folders)


def is_inside(name: str) -> bool:
    """True if a path stays within the folder that it is relative to."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") and "\0" not in part for part in parts) and not is_broken(name)


def is_broken(text: str) -> bool:
    """True if a text from JSON is no valid Unicode."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
