"""Maps or masks from elsewhere: the files of a folder, joined to the images of a data set, and their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from saliency_pipeline.datasets.box_files import refuse_regions
from saliency_pipeline.datasets.export_file import is_export
from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.walk import files_below
from saliency_pipeline.datasets.joining import join_names, unmatched
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.progress import Progress
from saliency_pipeline.text import plural, shown

SUFFIXES = (".png", ".npy")

_THREADS = 8
"""Number of reading threads: disks need concurrent requests."""


def with_maps(catalogue: Catalogue, folder: str | os.PathLike[str], note: Callable[[str], None]) -> Catalogue:
    """A catalogue whose records have the files of their maps: those of the same path without suffix.

    `masks/cat/1.png` is the map of `cat/1.jpg`, and so is `masks/1.png` if no other image is called 1; see
    `joining.join_names`. No file is opened. Hidden files are skipped.

    Args:
        catalogue: all images of a data set, before any are selected.
        folder: folder of `.png` and `.npy` files, at any depth; or the catalogue's own folder if it is an export of
            `salpipe convert`, whose maps are then used.
        note: receives the number of images with a map, of images without and of files of no image.

    Raises:
        SalpipeError: the folder cannot be read, two files are of one image or one of several, or none is of an image.
    """
    top = os.path.abspath(folder)
    refuse_regions(catalogue, "--maps-from")
    if is_export(top):
        return _with_own_maps(catalogue, top, note)
    paths = _files(top)
    keys = [record.key for record in catalogue.records]
    matches = join_names({name: shown(path) for name, path in paths.items()}, keys, stems=True)
    others = [name for name in paths if name not in matches]
    if not matches:
        there = f"there is {unmatched(others, keys)}" if others else f"there is no file {' or '.join(SUFFIXES)}"
        raise SalpipeError(
            f"{shown(top)}: maps of none of the images of {shown(catalogue.root)} ({there}; an image is "
            f"{shown(keys[0])}); call each map as its image, with .png or .npy"
        )
    # an export's own maps are not those of the folder
    records = [replace(record, maps=None) if record.maps else record for record in catalogue.records]
    for name, place in matches.items():
        records[place] = replace(records[place], map_path=paths[name])
    lines = [f"{shown(top)}: maps of {plural(len(matches), 'image')}, each of the whole image"]
    if bare := [record.key for record in records if not record.map_path]:
        named = ", ".join(map(shown, bare[:3])) + (", ..." if len(bare) > 3 else "")
        lines.append(f"{plural(len(bare), 'image')} without one, whose maps are zeros ({named})")
    if others:
        lines.append(f"{plural(len(others), 'file')} of no image: {unmatched(others, keys)}")
    note("; ".join(lines))
    return replace(catalogue, records=records)


def _with_own_maps(catalogue: Catalogue, top: str, note: Callable[[str], None]) -> Catalogue:
    """The catalogue of an export, whose records then use the maps in it."""
    shapes = next((record.maps.shapes for record in catalogue.records if record.maps), {})
    if catalogue.layout != "export" or not os.path.samefile(catalogue.root, top) or not shapes:
        reason = "an export without maps" if catalogue.layout == "export" and not shapes else "an export"
        raise SalpipeError(
            f"{shown(top)}: {reason}; maps of an export are stored only with its own images: give it as IMAGES, "
            "too, or for other images one of the folders in its folder maps"
        )
    note(f"{shown(top)}: maps of {plural(len(catalogue), 'image')} by {', '.join(shapes)}, stored with raw values")
    return replace(catalogue, records=[replace(record, map_path=record.path) for record in catalogue.records])


def maps_digest(records: Sequence[ImageRecord], progress: Progress) -> dict[str, Any]:
    """Number of images with a map and SHA-256 of the maps' contents, as the provenance has them.

    All of the files are read: of an array in `.npy` the size stays when its values change.

    Raises:
        SalpipeError: a file cannot be read.
    """
    own = [record for record in records if record.map_path]
    digest = hashlib.sha256()
    stored = next((record.maps for record in own if record.maps), None)
    progress.start(len(own), "map", "hashing")
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for record, sha256 in zip(own, pool.map(_sha256, own), strict=True):
                digest.update(f"{record.key}\0{sha256}\n".encode())
                progress.advance(1)
    finally:
        progress.stop()
    facts: dict[str, Any] = {"images": len(own), "sha256": digest.hexdigest()}
    if stored:
        facts["methods"] = {method: list(shape) for method, shape in stored.shapes.items()}
    return facts


def _sha256(record: ImageRecord) -> str:
    with file_errors_explained(record.map_path):
        if record.maps is None:
            return sha256_of(record.map_path)
        try:
            raw = record.maps.read()
        except BadImageError as error:
            raise SalpipeError(f"{shown(record.map_path)}: {shown(record.key)}: {error}") from None
    digest = hashlib.sha256()
    for method, values in sorted(raw.maps.items()):
        digest.update(f"{method}\0{raw.targets[method].tolist()}\0".encode() + values.tobytes())
    return digest.hexdigest()


def _files(top: str) -> dict[str, str]:
    """The files of maps in a folder, by their path in it without suffix."""
    paths: dict[str, str] = {}
    for path, name in files_below(top, SUFFIXES):
        if (other := paths.setdefault(name, path)) != path:
            raise SalpipeError(f"{shown(path)}: {shown(other)} is a map of the same image; leave one out")
    return paths
