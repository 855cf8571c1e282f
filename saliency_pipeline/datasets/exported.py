"""Layout `export`: what `salpipe convert` wrote, in any of its formats, with keys, classes, splits and maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from saliency_pipeline.datasets.export_file import Export, is_broken, is_export, is_inside, read_export_file
from saliency_pipeline.datasets.exported_maps import MAX_FACTS_BYTES, FileMaps, TableMaps, TarMaps, facts_at
from saliency_pipeline.datasets.exported_tables import read_rows
from saliency_pipeline.datasets.files.archive import Member, members
from saliency_pipeline.datasets.files.errors import file_errors_explained, folder_errors_explained
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.parquet_rows import ParquetRecord
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.images.keys import class_name, natural
from saliency_pipeline.images.record import SPLITS, Box, Catalogue, ImageRecord
from saliency_pipeline.text import plural, shown

_MAX_KEY = 4096
_DAMAGED = "run the same 'salpipe convert' again"
_COLUMNS = ("key", "split", "source/size", "source/box")


@dataclass
class _Reader:
    """Reads one export.

    Attributes:
        root: the export.
        export: its description.
        notes: receives what is skipped.
        boxes: returns boxes in the image from those in the original and its size.
    """

    root: str
    export: Export
    notes: Notes
    boxes: Callable[[Any, Any], tuple[Box, ...]]
    keys: set[str] = field(default_factory=set)

    def record(self, facts: dict[str, Any], where: str, make: Callable[..., ImageRecord]) -> ImageRecord:
        """A record from the description of an image.

        Args:
            facts: key, label, split, and boxes in the original image with its size, if there are boxes.
            where: place of the description, for messages.
            make: makes the record from key, label, split and boxes.
        """
        key, label, split = facts.get("key"), facts.get("label", -1), facts.get("split")
        if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY or "\0" in key or is_broken(key):
            raise self._fault(where, "its key is missing or impossible")
        if type(label) is not int or not -1 <= label < max(1, len(self.export.classes)):
            raise self._fault(where, f"its label is none of the {plural(len(self.export.classes), 'class')}")
        if not isinstance(split, str) or split not in SPLITS:
            raise self._fault(where, "its split is unknown")
        if key in self.keys:
            raise self._fault(where, f"its key {shown(key)} is that of another image")
        self.keys.add(key)
        source = facts.get("source")
        boxes = source.get("box") if isinstance(source, dict) else None
        try:
            own = self.boxes(boxes, source["size"]) if boxes else ()  # type: ignore[index]
        except (LookupError, TypeError, ValueError, ArithmeticError):
            raise self._fault(where, "its boxes are impossible") from None
        return make(key=key, label=label if self.export.classes else -1, split=SPLITS[split], boxes=own)

    def tars(self) -> Iterator[ImageRecord]:
        """The images of all tars of the export."""
        for name in _names(self.root, ".tar"):
            path = os.path.join(self.root, name)
            samples = groupby(members(path, self.notes, called=name), key=lambda each: each.name.partition(".")[0])
            for sample, files in samples:
                parts = {each.name.partition(".")[2]: each for each in files}
                image, facts = parts.get("png") or parts.get("jpg"), parts.get("json")
                if image is None or facts is None:
                    raise self._fault(f"{name}: {sample}", "its image or its description is missing")
                maps = [parts.get(f"{method}.npy") for method in self.export.maps]
                yield self._of_tar(path, f"{name}: {sample}", image, facts, maps)

    def _of_tar(self, path: str, where: str, image: Member, facts: Member, maps: list[Member | None]) -> ImageRecord:
        places = tuple((each.offset, each.size) for each in maps if each is not None)
        if len(places) < len(maps):
            raise self._fault(where, "one of its maps is missing")
        own = TarMaps(path, (facts.offset, facts.size), places, self.export.maps)
        described = self._facts((path, facts.offset, facts.size), where)
        make = partial(ImageRecord, path=path, offset=image.offset, length=image.size, maps=own if maps else None)
        return self.record(described, where, make)

    def folders(self) -> Iterator[ImageRecord]:
        """The images that the lists of samples of the export name."""
        top = os.path.join(self.root, "samples")
        for name in _names(top, ".jsonl"):
            path, offset = os.path.join(top, name), 0
            with open(path, "rb", opener=open_regular) as file:
                for line in iter(partial(file.readline, MAX_FACTS_BYTES), b""):
                    where = f"samples/{name}: byte {offset}"
                    facts = self._facts((path, offset, len(line)), where)
                    file_name = facts.get("file")
                    if not isinstance(file_name, str) or not is_inside(file_name):
                        raise self._fault(where, "the path of its image is missing or leads out of the export")
                    stem = file_name.removeprefix("images/").rpartition(".")[0]
                    own = FileMaps(
                        (path, offset, len(line)),
                        os.path.join(self.root, "maps"),
                        stem,
                        self.export.maps_as,
                        self.export.map_folders,
                        self.export.maps,
                    )
                    image = os.path.join(self.root, *file_name.split("/"))
                    maps = own if self.export.maps else None
                    yield self.record(facts, where, partial(ImageRecord, path=image, maps=maps))
                    offset += len(line)

    def tables(self) -> Iterator[ImageRecord]:
        """The images of all tables of the export."""
        for name in _names(self.root, ".parquet"):
            path = os.path.join(self.root, name)
            columns = [*_COLUMNS[:2], *(["label"] if self.export.classes else [])]
            for row in read_rows(path, columns, _COLUMNS[2:]):
                box = {"box": row.values.get("source/box"), "size": row.values.get("source/size")}
                maps = TableMaps(path, row.group, row.row_of_group, self.export.maps) if self.export.maps else None
                make = partial(ParquetRecord, path=path, length=row.length, row=row.row, maps=maps)
                yield self.record({**row.values, "source": box}, f"{name}: row {row.row}", make)

    def _facts(self, place: tuple[str, int, int], where: str) -> dict[str, Any]:
        try:
            return facts_at(place)
        except BadImageError as error:
            raise self._fault(where, str(error)) from None

    def _fault(self, where: str, reason: str) -> SalpipeError:
        return SalpipeError(f"{shown(self.root)}: {shown(where)}: {reason}; {_DAMAGED}")


def _read(path: Path, options: ReadOptions) -> Catalogue:
    """The images of an export; nothing but their descriptions is read."""
    root, notes = os.path.abspath(path), Notes()
    export = read_export_file(root)
    reader = _Reader(root, export, notes, partial(_boxes_in_image, export))
    read = {"webdataset": reader.tars, "parquet": reader.tables, "png": reader.folders}[export.kind]
    with file_errors_explained(root):
        records = sorted(read(), key=lambda record: natural(record.key))
    if not records:
        raise SalpipeError(f"{shown(root)}: no images{notes.cause()}; {_DAMAGED}")
    if len(records) != export.images:
        count = f"{plural(len(records), 'image')} instead of {export.images:,}"
        raise SalpipeError(f"{shown(root)}: {count}, because files are missing or were added; {_DAMAGED}")
    classes = tuple(map(class_name, export.classes))
    if export.maps:
        named = ", ".join(export.maps)
        notes.remark(named, "maps in the export, which are stored only with --maps-from and the same folder")
    return Catalogue(root, records, classes, layout="export", notes=notes.lines(), passed_over=notes.passed_over())


def _boxes_in_image(export: Export, boxes: Any, size: Any) -> tuple[Box, ...]:
    """Boxes of the original image in whole pixels of the exported one, which shows a part of it."""
    from saliency_pipeline.images.fit import FITS, boxes_in_frame

    settings = export.provenance.get("settings")
    fit = settings.get("fit") if isinstance(settings, dict) else None
    height, width = size
    if fit not in FITS or not all(type(side) is int and 0 < side < 2**31 for side in (height, width)):
        return ()
    inside = boxes_in_frame(boxes, (height, width), export.size, fit).round().astype(int).tolist()
    return tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in inside if x0 < x1 and y0 < y1)


def _names(folder: str, suffix: str) -> list[str]:
    with folder_errors_explained(folder):
        names = [name for name in os.listdir(folder) if name.endswith(suffix) and not name.startswith((".", "tmp."))]
    return sorted(names, key=natural)


LAYOUTS = (
    Layout("export", "an export of salpipe convert: export.json with tars, tables or folders", is_export, _read),
)
