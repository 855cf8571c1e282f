"""Recognition of the kind of a file or folder by names, for errors if another kind is needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import quote

from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import has_image_suffix

SHARDS, UNFINISHED, RUN = "a finished folder of shards", "an unfinished folder of shards", "a run of 'salpipe train'"
COMPARISON, IMAGES = "a comparison", "a folder of images"
ARCHIVES, TABLES, EMPTY = "a folder of archives", "a folder of Parquet files", "an empty folder"
IMAGE, ARCHIVE, TABLE, NETWORK = "a single image", "an archive", "a Parquet file", "the weights of a network"
SHARD, FOLDER, FILE, ODD = "a shard", "a folder of other files", "some other file", "no regular file"

PULLED = "hub.json"
"""File of a folder that `salpipe pull` wrote."""

# kinds of folders by a file in them, in order of precedence
_MARKS = {
    "manifest.json": SHARDS,
    # before the plan, which a comparison and an assessment have as well
    "results.json": COMPARISON,
    "assess.json": "an assessment",
    "plan.json": UNFINISHED,
    "best.safetensors": RUN,
    "last.safetensors": RUN,
    "provenance.json": RUN,
    "evaluation.json": "an evaluation",
    "predictions.json": "predictions",
    "gallery.html": "a gallery",
    "export.json": "an export of 'salpipe convert'",
}
_ENDINGS = {
    ".h5": SHARD,
    ".hdf5": SHARD,
    ".safetensors": NETWORK,
    ".pth": NETWORK,
    ".pt": NETWORK,
    ".ckpt": NETWORK,
    ".parquet": TABLE,
    ".tar": ARCHIVE,
    ".tgz": ARCHIVE,
    ".gz": ARCHIVE,
    ".zip": ARCHIVE,
}
_FOLDERS = {IMAGE: IMAGES, ARCHIVE: ARCHIVES, TABLE: TABLES, SHARD: UNFINISHED}
_DATA = (IMAGES, ARCHIVES, TABLES, ARCHIVE, TABLE)
_HDF5 = b"\x89HDF\r\n\x1a\n"
# class folders are one to three levels deep, and a few names are enough
_LEVELS, _NAMES = 3, 2000


def recognize(path: Path | str) -> str:
    """Kind of an existing path: one of the constants above, or a word for another output of salpipe.

    Raises:
        SalpipeError: the folder cannot be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            return _of_name(path.name) if stat.S_ISREG(mode) else ODD
        names = set(os.listdir(path))
        for name, kind in _MARKS.items():
            if name in names:
                return kind
        kinds = {_of_name(name) for name in islice(_files(path, _LEVELS), _NAMES)}
    except OSError as error:
        raise SalpipeError(f"{path}: {error.strerror}; check its permissions") from error
    for kind, folder in _FOLDERS.items():
        if kind in kinds:
            return folder
    return FOLDER if names else EMPTY


def is_shards(path: Path | str) -> bool:
    """True if an existing path looks like a finished folder of shards or one shard."""
    if os.path.isdir(path):
        return os.path.lexists(os.path.join(path, "manifest.json"))
    kind = recognize(path)
    return kind == SHARD or (kind == FILE and _is_hdf5(path))


def no_shards(path: Path | str) -> SalpipeError:
    """The error for a path that is no finished folder of shards."""
    kind = recognize(path)
    if kind == UNFINISHED:
        return SalpipeError(f"{path}: not a finished salpipe folder; run 'salpipe generate' again to finish it")
    if kind in _DATA:
        wanted = "not of shards" if kind in _FOLDERS.values() else "not shards"
        return SalpipeError(f"{path}: {kind}, {wanted}; run {f'salpipe generate {quote(str(path))} -o shards'!r} first")
    remedy = "give a folder that 'salpipe generate' wrote"
    if kind in (RUN, COMPARISON, NETWORK):
        remedy = "give the shards that it was trained on"
    elif kind == SHARDS:
        remedy = "give the folder itself"
    return SalpipeError(f"{path}: {kind}, holds no shards; {remedy}")


def refuse_shards(output: Path) -> None:
    """Raise SalpipeError if an output folder contains shards."""
    try:
        names = os.listdir(output)
    except OSError:  # creating it or writing to it raises the error
        return
    if any(_MARKS.get(name) == SHARDS or (name.startswith("shard-") and _of_name(name) == SHARD) for name in names):
        raise SalpipeError(f"{output}: holds shards; choose another output folder")


def no_run(path: Path | str) -> SalpipeError:
    """The error for a path that is no run with a trained network."""
    kind = recognize(path) if os.path.lexists(path) else "no such file or folder"
    remedy = "give a run that 'salpipe train' made"
    if kind == RUN:
        kind, remedy = "an unfinished run", "finish it with the same 'salpipe train'"
    elif kind in (SHARDS, SHARD):
        remedy = f"{remedy}, such as by {f'salpipe train {quote(str(path))} -o run'!r}"
    elif kind == COMPARISON:
        remedy = f"{remedy}, such as those in {Path(path) / 'runs'}"
    return SalpipeError(f"{path}: {kind}, holds no trained network; {remedy}")


def _of_name(name: str) -> str:
    return IMAGE if has_image_suffix(name) else _ENDINGS.get(os.path.splitext(name)[1].lower(), FILE)


def _is_hdf5(path: Path | str) -> bool:
    try:
        with open(path, "rb", opener=open_regular) as file:
            return file.read(len(_HDF5)) == _HDF5
    except OSError as error:
        raise SalpipeError(f"{path}: {error.strerror}; check its permissions") from error


def _files(folder: Path, levels: int) -> Iterator[str]:
    """Names of files in a folder and in those within it, except those that cannot be read."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                below.append(entry.path)
            else:
                yield entry.name
    if levels > 1:
        for inner in below:
            try:
                yield from _files(Path(inner), levels - 1)
            except OSError:
                continue
