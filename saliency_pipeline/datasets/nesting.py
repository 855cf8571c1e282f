"""Protection of image folders from outputs, whose pictures would become data of the next run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from saliency_pipeline.datasets.files.listing import PLOTS, Listing, listing
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.text import shown

OWN_FOLDERS = frozenset({"figures"})
"""Folders of plots of the commands: an earlier output is no image folder."""

_GLANCE, _FOLDERS, _FEW = 256, 64, 3


def refuse_among_images(output: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse an output that is an image folder or lies within one.

    An image folder is one whose entries are mostly images, or whose folders mostly are full of images, including the
    classes of train, val and test. The output itself is checked, and every folder above it up to the first that also
    contains an input, or to the user's home.

    Args:
        output: the folder, which need not exist; or a file, for which only the folders above are checked.
        inputs: other inputs of the command than images: shards, runs, lists.

    Raises:
        SalpipeError: the output is refused; the message names both folders.
    """
    folder = Path(output).resolve()
    beside = [Path(each).resolve() for each in inputs if not is_url(each)]
    if folder.is_dir() and _is_image_folder(folder, few=1):
        raise SalpipeError(f"{shown(folder)}: a folder of images; choose an output folder outside it")
    home = Path(os.path.expanduser("~")).resolve()
    for above in folder.parents:
        if above == above.parent or home.is_relative_to(above) or any(each.is_relative_to(above) for each in beside):
            return
        if above.is_dir() and _is_image_folder(above, few=_FEW):
            refuse_nesting(above, Path(output))


def refuse_nesting(root: Path, folder: Path) -> None:
    """Raise SalpipeError if an output folder lies within a folder of images."""
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise SalpipeError(f"{folder} lies inside the image folder {root}; choose an output folder outside")


def _is_image_folder(folder: Path, *, few: int) -> bool:
    """True if most entries are images, `few` or more, or most folders hold images."""
    entries = _glance(folder)
    images = [name for name in entries.images if name not in PLOTS]
    if len(images) >= few and len(images) > len(entries.others) + len(entries.folders):
        return True
    folders = [folder / name for name in entries.folders[:_FOLDERS] if name not in OWN_FOLDERS]
    full = sum(any(map(_holds_images, _classes(each))) for each in folders)
    return full >= min(few, 2) and 2 * full > len(folders)


def _classes(folder: Path) -> Iterator[Path]:
    """A folder, and its folders if it is a split."""
    yield folder
    if folder.name.lower() in SPLIT_FOLDERS:
        yield from (folder / name for name in _glance(folder).folders[:_FOLDERS])


def _holds_images(folder: Path) -> bool:
    entries = _glance(folder)
    return len([name for name in entries.images if name not in PLOTS]) > len(entries.others)


def _glance(folder: Path) -> Listing:
    try:
        return listing(str(folder), _GLANCE)
    except SalpipeError:  # writing to it raises the error
        return Listing([], [], [], [], Counter(), Counter())
