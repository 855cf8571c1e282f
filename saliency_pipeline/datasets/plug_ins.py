"""Layouts from installed packages: entry points of the group `salpipe.readers`.

An entry point is named as its layout and refers to a `Layout`, which recognizes its data sets, or to a function from an
absolute path and `ReadOptions` to a `Catalogue`, which is used by its name only. It is imported when a data set is
read that no layout of salpipe's own recognizes, or when its layout is named.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.plug_ins import failures_named, load_plug_in, plug_in_names
from saliency_pipeline.text import shown

GROUP = "salpipe.readers"
_OTHERWISE = ", or name another --layout"


def layout_names() -> list[str]:
    """Names of the layouts of installed packages, sorted; nothing of them is imported."""
    return plug_in_names(GROUP)


def plug_in_layout(name: str) -> Layout:
    """Import the layout of an installed package, one of `layout_names`.

    Raises:
        SalpipeError: it cannot be imported or is none, or several packages have it; the message names the packages.
    """
    plug_in = load_plug_in(GROUP, "layout", name, _OTHERWISE)
    assert plug_in is not None, "layout_names has only names of entry points"
    label, reader = plug_in.label, plug_in.loaded
    if isinstance(reader, Layout):
        if reader.name != name:
            raise SalpipeError(f"{label}: is called {reader.name}; update or uninstall it")
        layout = reader
    elif callable(reader):
        layout = Layout(name, f"a reader of {plug_in.packages}", lambda path: False, reader)
    else:
        kind = type(reader).__name__
        raise SalpipeError(f"{label}: {plug_in.value} is of type {kind}, no reader; update or uninstall it")

    def recognize(path: Path) -> bool:
        with failures_named(label, f"fails to look at {shown(path)}", _OTHERWISE):
            return bool(layout.recognize(path))

    def read(path: Path, options: ReadOptions) -> Catalogue:
        with failures_named(label, f"fails to read {shown(path)}", _OTHERWISE):
            catalogue = layout.read(path, options)
            if problem := _problem(catalogue):
                raise TypeError(problem)
            return catalogue

    return replace(layout, recognize=recognize, read=read)


def _problem(catalogue: object) -> str | None:
    """The reason why an object is no catalogue as `Catalogue` describes it, or None."""
    if not isinstance(catalogue, Catalogue):
        return f"it returns an object of type {type(catalogue).__name__}, no Catalogue"
    if not catalogue.records:
        return "it returns no images"
    if len(set(catalogue.classes)) < len(catalogue.classes):
        return "two classes have the same name"
    keys = set()
    for record in catalogue.records:
        if record.key in keys:
            return f"two images have the key {record.key!r}"
        keys.add(record.key)
        if not -1 <= record.label < len(catalogue.classes):
            return f"{record.key}: label {record.label} for {len(catalogue.classes)} classes"
        if not os.path.isabs(record.path):
            return f"{record.key}: its path {record.path!r} is not absolute"
    return None
