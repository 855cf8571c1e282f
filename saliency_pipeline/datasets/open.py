"""From a path to its catalogue: all layouts, and recognition of the layout of a path."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from saliency_pipeline.datasets import exported, folder, parquet, pubfig, webdataset
from saliency_pipeline.datasets.confusable_names import lookalikes
from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.imagenet import ilsvrc, subsets
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.plug_ins import layout_names, plug_in_layout
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.text import shown

LAYOUTS: tuple[Layout, ...] = (
    *exported.LAYOUTS,
    *pubfig.LAYOUTS,
    *subsets.LAYOUTS,
    *ilsvrc.LAYOUTS,
    *parquet.LAYOUTS,
    *webdataset.LAYOUTS,
    *folder.LAYOUTS,
)
"""salpipe's own layouts. The first that recognizes a path is used, those of installed packages before the last one,
plain folders, which accept everything."""

_USUAL = ReadOptions()
_PARTICULAR = (
    ("label_level", "--label-level", "folders", "plain folders"),
    ("noise", "--noise", "imagenette", "noisy_imagenette.csv or noisy_imagewoof.csv there"),
    ("list", "--list", "pubfig", "the images of a list of PubFig"),
    ("crop", "--no-crop", "pubfig", "the rectangles of a list of PubFig"),
    ("margin", "--margin", "pubfig", "the rectangles of a list of PubFig"),
)
"""Options of a single layout: field, flag, layout, requirement."""


def read_images(
    path: str | os.PathLike[str],
    layout: str = "auto",
    options: ReadOptions | None = None,
    note: Callable[[str], None] | None = None,
) -> Catalogue:
    """List the images of a data set of any layout.

    Args:
        path: folder, archive, parquet file or single image.
        layout: name of one of `LAYOUTS` or of one that an installed package has, or `auto` to recognize it from its
            files; with a list of PubFig, `pubfig`.
        options: options of the reader.
        note: receives the layout and what is skipped, line by line.

    Raises:
        SalpipeError: the path or layout does not exist, or the data set lacks a file or holds no image.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for name in ("cat/1.jpg", "dog/1.jpg"):
        ...         Path(root, name).parent.mkdir()
        ...         Path(root, name).touch()
        ...     catalogue = read_images(root)
        >>> catalogue.layout, catalogue.classes
        ('folders', ('cat', 'dog'))
    """
    # absolute, because images are read by worker processes with other working folders
    absolute = Path(os.path.abspath(path))
    if not absolute.exists():
        raise SalpipeError(f"{shown(absolute)}: no such file or folder; check the path")
    if not (absolute.is_dir() or absolute.is_file()):
        raise SalpipeError(f"{shown(absolute)}: no regular file; give a folder, an archive or an image")
    options = options or ReadOptions()
    if layout == "auto" and options.list:
        layout = "pubfig"
    kind = find_layout(layout) if layout != "auto" else recognize(absolute)
    for name, flag, only, has in _PARTICULAR:
        if getattr(options, name) != getattr(_USUAL, name) and kind.name != only:
            raise SalpipeError(f"{shown(absolute)}: layout {kind.name}, but {flag} needs {has}; leave it out")
    catalogue = kind.read(absolute, options)
    catalogue = replace(catalogue, layout=kind.name, notes=(*catalogue.notes, *lookalikes(catalogue.classes)))
    if note:
        note(f"{shown(absolute)}: layout {kind.name} ({kind.description})")
        for line in catalogue.notes:
            note(line)
    return catalogue


def recognize(path: Path) -> Layout:
    """The layout a path looks like, by a few names and without reading an image.

    Raises:
        SalpipeError: the layout of an installed package fails: without it a data set might be read differently.
    """
    with file_errors_explained(str(path)):
        own = next(layout for layout in LAYOUTS if layout.recognize(path))
        if own is not LAYOUTS[-1]:
            return own
        return next((layout for layout in map(plug_in_layout, _others()) if layout.recognize(path)), own)


def find_layout(name: str) -> Layout:
    """The layout of a name. Raises SalpipeError if there is none."""
    by_name = {layout.name: layout for layout in LAYOUTS}
    if name in by_name:
        return by_name[name]
    if name in (others := _others()):
        return plug_in_layout(name)
    near = difflib.get_close_matches(name, [*by_name, *others], n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"choose from auto, {', '.join([*by_name, *others])}"
    raise SalpipeError(f"--layout {name}: no such layout; {remedy}")


def _others() -> list[str]:
    """Names of layouts that installed packages add; those of salpipe's own layouts stay with them."""
    return [name for name in layout_names() if name not in ("auto", *(layout.name for layout in LAYOUTS))]
