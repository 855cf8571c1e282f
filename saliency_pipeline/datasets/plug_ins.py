"""Layouts from installed packages: entry points of the group `salpipe.readers`.

An entry point is named as its layout and refers to a `Layout`, which recognizes its data sets, or to a function from an
absolute path and `ReadOptions` to a `Catalogue`, which is used by its name only. It is imported when a data set is
read that no layout of salpipe's own recognizes, or when its layout is named.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.text import one_line, shown

GROUP = "salpipe.readers"


def plug_in_names() -> list[str]:
    """Names of the layouts of installed packages, sorted; nothing of them is imported."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def plug_in_layout(name: str) -> Layout:
    """Import the layout of an installed package, one of `plug_in_names`.

    Raises:
        SalpipeError: it cannot be imported or is none, or several packages have it; the message names the packages.
    """
    # an installation may list its entry points twice
    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    packages = ", ".join(sorted({_package(entry) for entry in entries.values()}))
    label = f"layout {name} of {packages}"
    if len(entries) > 1:
        raise SalpipeError(f"{label}: more than one; uninstall all packages but one of them")
    (entry,) = entries.values()
    with _failures_named(label, "cannot be imported"):
        reader: object = entry.load()
    if isinstance(reader, Layout):
        if reader.name != name:
            raise SalpipeError(f"{label}: is called {reader.name}; update or uninstall it")
        layout = reader
    elif callable(reader):
        layout = Layout(name, f"a reader of {packages}", lambda path: False, reader)
    else:
        kind = type(reader).__name__
        raise SalpipeError(f"{label}: {entry.value} is of type {kind}, no reader; update or uninstall it")

    def recognize(path: Path) -> bool:
        with _failures_named(label, f"fails to look at {shown(path)}"):
            return bool(layout.recognize(path))

    def read(path: Path, options: ReadOptions) -> Catalogue:
        with _failures_named(label, f"fails to read {shown(path)}"):
            catalogue = layout.read(path, options)
            if problem := _problem(catalogue):
                raise TypeError(problem)
            return catalogue

    return replace(layout, recognize=recognize, read=read)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "a package"


@contextmanager
def _failures_named(label: str, event: str) -> Iterator[None]:
    """Raise an error of a package as SalpipeError, with the line where it was raised."""
    try:
        yield
    except (SalpipeError, MemoryError):
        raise
    except Exception as error:  # whatever a package raises
        frame = traceback.extract_tb(error.__traceback__)[-1]
        # neither where salpipe checks the result nor where Python looks for the attribute of a module
        elsewhere = frame.filename == __file__ or "importlib" in Path(frame.filename).parts
        where = "" if elsewhere else f" at {os.path.basename(frame.filename)}:{frame.lineno}"
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SalpipeError(
            f"{label}: {event}{where} ({reason}); update or uninstall the package, or name another --layout"
        ) from error


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
