"""Data sets at URLs, read by the same layouts as those on disk.

A layout sees a folder in which every remote file has a stand-in: a copy of a list or table of labels, an empty file for
an image, and for archives and parquet tables a file without contents, in whose place they are read by ranges. The
records are then given the URLs. Nothing of an image is read.
"""

from __future__ import annotations

import errno
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from saliency_pipeline.contents import standing_in
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.parquet_pages import row_groups
from saliency_pipeline.datasets.parquet_rows import (
    ParquetRecord,
    RemoteParquetRecord,
    columns_of,
    open_table,
)
from saliency_pipeline.datasets.remote_index import Indexed, Indexes, index_path
from saliency_pipeline.datasets.remote_scan import indexed, is_archive_name, is_table_name
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import ending_of, has_image_suffix
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.images.remote_record import RemoteRecord
from saliency_pipeline.progress import Progress
from saliency_pipeline.remote.file import MOST, RemoteFile
from saliency_pipeline.remote.origin import Origin, find_origin
from saliency_pipeline.storage.store import is_url

MAX_LIST_BYTES = 1 << 26
"""Largest list or table of labels that is copied."""

_LISTS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".mat"})
_PLAIN = tuple(field.name for field in fields(ImageRecord))
_OF_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
"""Errors of creating a file that its name is the cause of."""


def read_place(
    place: str | os.PathLike[str],
    layout: str = "auto",
    options: ReadOptions | None = None,
    *,
    index: Path | None = None,
    pinned: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Catalogue:
    """List the images of a data set at a path, see `read_images`, or at a URL.

    Args:
        place: path; or URL of a folder, archive, parquet table or image on object storage (s3://bucket/folder), of a
            file on a web server (https://host/data.tar), or of a data set on the Hugging Face Hub
            (hf://datasets/org/name@revision).
        layout: its layout's name, or `auto`.
        options: options of the reader.
        index: folder that keeps the indexes of remote archives and tables for the next run.
        pinned: `Catalogue.origin` of an earlier run, from which it must not differ.
        progress: receives notes and progress.

    Returns:
        The catalogue. Keys, labels, splits and sizes are those of a copy on disk.

    Raises:
        SalpipeError: as `read_images`; or the URL is none of images, cannot be read, or has changed.
    """
    progress = progress or Progress()
    if not is_url(place):
        return read_images(place, layout, options, progress.note)
    origin = find_origin(str(place), dict(pinned) if pinned else None)
    with ExitStack() as stack:
        with _space_explained():
            folder = stack.enter_context(TemporaryDirectory(prefix="salpipe-"))
        stand_ins = _StandIns(origin, Path(os.path.realpath(folder)), index)
        return stand_ins.read(layout, options, progress)


@dataclass
class _StandIns:
    """A folder of stand-ins.

    Attributes:
        origin: the remote files.
        folder: an empty folder.
        index: folder of kept indexes, if these are to be kept.
    """

    origin: Origin
    folder: Path
    index: Path | None

    def __post_init__(self) -> None:
        self.top = self.folder / "data" / (_safe(self.origin.name) or "images")
        self.files: dict[str, RemoteFile] = {}
        self.lists: list[str] = []
        self.notes = Notes()

    def read(self, layout: str, options: ReadOptions | None, progress: Progress) -> Catalogue:
        """The catalogue of the data set."""
        with self._named():
            with _space_explained():
                self._make()
            places = self.index or self.folder / "index"
            lists = set(self.lists)
            contents = [path for path in self.files if path not in lists and not has_image_suffix(path)]
            self._fetch(contents, places, progress)
            indexes = Indexes(places)
            with standing_in({path: Indexed(self.files[path], indexes) for path in contents}):
                catalogue = read_images(self.top, layout, options, lambda line: progress.note(self._renamed(line)))
                records = [self._remote(record) for record in catalogue.records]
            if indexes.failure:
                raise indexes.failure
        for line in self.notes.lines():
            progress.note(line)
        notes = tuple(map(self._renamed, catalogue.notes))
        return replace(
            catalogue,
            root=self.origin.url,
            records=records,
            notes=(*notes, *self.notes.lines()),
            passed_over={**catalogue.passed_over, **self.notes.passed_over()},
            origin=self.origin.pin,
        )

    def _make(self) -> None:
        """Create the stand-ins."""
        self.top.parent.mkdir()
        if not self.origin.is_file:
            self.top.mkdir()
        folders = {""}
        for name, file in self.origin.files.items():
            parts = name.split("/") if name else []
            above = "/".join(parts[:-1])
            path = os.path.join(self.top, *parts)
            try:
                if any(_safe(part) != part for part in parts):
                    raise ValueError(name)
                if above not in folders:
                    os.makedirs(os.path.join(self.top, above), exist_ok=True)
                    folders.add(above)
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                if not has_image_suffix(name or self.origin.name):
                    self._size(path, file)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in _OF_NAMES:
                    raise
                self.notes.add(name, "not a valid file name on this machine; rename it")
                continue
            self.files[path] = file

    def _size(self, path: str, file: RemoteFile) -> None:
        if ending_of(os.path.basename(path)) in _LISTS:
            if file.size > MAX_LIST_BYTES:
                os.unlink(path)
                self.notes.add(os.path.basename(path), "larger than a list of images, and not read")
            else:
                self.lists.append(path)
        else:
            os.truncate(path, file.size)  # sparse

    def _fetch(self, contents: list[str], places: Path, progress: Progress) -> None:
        """Copy the lists, and index archives and tables."""
        scanned = [path for path in contents if is_archive_name(path) or is_table_name(path)]
        if not self.lists and not scanned:
            return

        def fetch(path: str) -> None:
            file = self.files[path]
            if path in lists:
                data = file.read(file.size, 0)
                with _space_explained():
                    Path(path).write_bytes(data)
            else:
                indexed(path, file, index_path(places, file))

        lists = set(self.lists)
        progress.start(len(self.lists) + len(scanned), "file", "reading lists and archives")
        try:
            with ThreadPoolExecutor(MOST, "index") as pool:
                for _ in pool.map(fetch, [*self.lists, *scanned]):
                    progress.advance(1)
        finally:
            progress.stop()

    def _remote(self, record: ImageRecord) -> ImageRecord:
        """A record with the URL of its file."""
        if (file := self.files.get(record.path)) is None:
            raise SalpipeError(f"{record.path}: in a list of images, but not there; restore it, or correct the list")
        # maps of an export are read from files here; --maps-from takes a folder
        values: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN} | {"maps": None}
        values |= {"path": file.url, "file_size": file.size, "tag": file.tag}
        if type(record) is ParquetRecord:
            start, end = _group(record.path, record.row)
            return RemoteParquetRecord(**values, row=record.row, group_start=start, group_end=end)
        if type(record) is not ImageRecord:
            raise SalpipeError(f"{self.origin.url}: its layout reads images from files; give the path of a copy")
        if record.length is None:
            values["length"] = file.size
        return RemoteRecord(**values)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors within a block name the URL, not the stand-in."""
        _starts.cache_clear()
        try:
            yield
        except SalpipeError as error:
            raise type(error)(self._renamed(str(error))) from error

    def _renamed(self, text: str) -> str:
        return text.replace(str(self.top), self.origin.url)


@contextmanager
def _space_explained() -> Iterator[None]:
    """Raise an OSError of writing stand-ins as SalpipeError: an image without one would be missing."""
    try:
        yield
    except OSError as error:
        raise SalpipeError(
            f"{tempfile.tempdir or 'temporary folder'}: cannot hold the temporary files of the data set "
            f"({error.strerror or error}); free space there, or set TMPDIR to another folder, and run the same command "
            "again"
        ) from error


def _safe(name: str) -> str:
    """The name of a file, if it is one here; else empty."""
    odd = name in (".", "..") or "\0" in name or "/" in name
    return "" if odd or len(os.fsencode(name)) > 255 else name


@lru_cache(maxsize=4)
def _starts(path: str) -> tuple[list[int], list[tuple[int, int]]]:
    """First row of each row group of a table and the one behind the last, and where the pages of its images are."""
    column = columns_of(open_table(path).schema_arrow, path).bytes
    rows, spans = [0], []
    for group in row_groups(path):
        chunk = group.chunk(column)
        rows.append(rows[-1] + group.rows)
        spans.append((chunk.start, chunk.start + chunk.packed))
    return rows, spans


def _group(path: str, row: int) -> tuple[int, int]:
    """Where the images of a row's row group are in a table."""
    rows, spans = _starts(path)
    return spans[bisect_right(rows, row) - 1]
