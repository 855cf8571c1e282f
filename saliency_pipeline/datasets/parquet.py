"""Layout `parquet`: tables of the Hugging Face Hub with an image and a label per row."""

from __future__ import annotations

import bisect
import errno
import itertools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from saliency_pipeline.datasets.files.errors import file_errors_explained, folder_errors_explained
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS, has_class_folders
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.parquet_pages import MAX_THRIFT_ITEMS, RowGroup, check_footer, check_pages, row_groups
from saliency_pipeline.datasets.samples import NULL, Labels, catalogue, original, split_of
from saliency_pipeline.documents import DocumentError, parse_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name, has_image_suffix, key_part, natural
from saliency_pipeline.images.record import MAX_FILE_BYTES, Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")

_MAX_GROUP_BYTES = 2**31
_MAX_LIGHT_BYTES = 2**26  # of names or labels in a row group
_MAX_METADATA_BYTES = 2**24
_MAX_NAME = 4096
_MAX_NAMES = 2**20  # of classes
_LIGHT_ROWS = 2**16
_MIN_ROW_BYTES = 32
_MANY, _GLANCE = 16, 4096  # of folders that can be configurations, and of entries that are looked at in each
_BUFFER_BYTES = 2**20

# metadata.parquet describes image files beside it
_TABLE = re.compile(r"(?!\.|metadata\.).*\.parquet", re.DOTALL | re.IGNORECASE)
_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\b.*", re.DOTALL)

_BYTES, _TEXTS = ("binary", "large_binary"), ("string", "large_string")  # types of Arrow

_thread = threading.local()


@dataclass(frozen=True, slots=True)
class ParquetRecord(ImageRecord):
    """An image in a row of a parquet file.

    Attributes:
        row: row of the file, from 0.
        length: mean number of bytes per image of its row group, since single sizes are only stored with the bytes.
    """

    row: int = 0

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError if they cannot be read or exceed `MAX_FILE_BYTES`.

        Each thread keeps its last file open. Rows in the order of the file are read once; others need those before
        them in their row group.
        """
        rows: _Rows | None = getattr(_thread, "rows", None)
        _thread.rows = None  # after an error the file is opened again
        with errors_of_arrow(self.path):
            if rows is None or rows.identity != _identity(self.path):
                rows = _Rows(self.path)
            data = rows.read(self.row)
        _thread.rows = rows
        return data


class _Rows:
    """The images of one file, read forwards."""

    def __init__(self, path: str) -> None:
        self.identity = _identity(path)
        self._path = path
        self._file = open_table(path)
        self._columns = _columns(self._file.schema_arrow, path)
        self._groups = row_groups(path)
        self._starts = list(itertools.accumulate((group.rows for group in self._groups), initial=0))
        self._group = -1
        self._next = 0
        self._batches: Iterator[Any] = iter(())

    def read(self, row: int) -> bytes:
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._next:
            if group >= len(self._groups):
                raise OSError(errno.EIO, "the file has fewer rows than it had", self._path)
            facts = self._groups[group]
            check_pages(self._path, facts.chunk(self._columns.bytes), facts.rows)
            # row by row: a dictionary can expand a few bytes to many large rows
            self._batches = self._file.iter_batches(
                1, row_groups=[group], columns=[self._columns.bytes], use_threads=False
            )
            self._group, self._next = group, self._starts[group]
        for batch in self._batches:
            self._next += 1
            if self._next > row:
                value = _leaves(batch)[self._columns.bytes][0].as_buffer()
                if value is None:
                    break
                if value.size > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
                return bytes(value)
        raise OSError(errno.EIO, "the row holds no image", self._path)


def _identity(path: str) -> tuple[object, ...]:
    """Identity of an open file: not that of the parent process, nor of a file that has replaced it."""
    status = os.stat(path)
    return os.getpid(), path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Columns(NamedTuple):
    """The columns that hold the images, their names and their labels; None where there is none."""

    bytes: str
    path: str | None
    label: str | None


def _recognize(path: Path) -> bool:
    try:
        folders = _folders_of_tables(path)
        if not folders or path.is_file():
            return bool(folders)
        if has_class_folders(path):
            return False
        if listing(str(path), _GLANCE).images:  # a README's, or those that the tables describe
            return _holds_images(folders[0][0])
    except SalpipeError:
        return False
    return True


def _holds_images(table: str) -> bool:
    with suppress(OSError, SalpipeError), errors_of_arrow(table):
        return bool(_columns(open_table(table).schema_arrow, table))
    return False


def _folders_of_tables(root: Path) -> list[list[str]]:
    """The tables in a folder or its `data`; else those in each of its folders, one per configuration on the Hub."""
    if root.is_file():
        return [[str(root)]] if _TABLE.fullmatch(root.name) else []
    for folder in (root, root / "data"):
        if folder.is_dir() and (tables := _tables(folder)):
            return [tables]
    folders = listing(str(root), _GLANCE).folders if root.is_dir() else []
    return [tables for name in folders[:_MANY] if (tables := _tables(root / name))]


def _tables(folder: Path) -> list[str]:
    """The tables directly in a folder, or else in its folders of splits."""
    with folder_errors_explained(str(folder)):
        names = os.listdir(folder)
        paths = [folder / name for name in names if _TABLE.fullmatch(name)]
        if not paths:
            splits = [folder / name for name in names if name.lower() in SPLIT_FOLDERS]
            paths = [split / name for split in splits if split.is_dir() for name in os.listdir(split)]
    return sorted((str(path) for path in paths if _TABLE.fullmatch(path.name) and path.is_file()), key=natural)


def _read(path: Path, options: ReadOptions) -> Catalogue:
    """The images of all tables in a folder, or of one, without reading their bytes."""
    root = os.path.abspath(path)
    notes, labels = Notes(), Labels()
    records: list[ImageRecord] = []
    names: tuple[str, ...] = ()
    source = ""
    unlabeled: dict[str, str] = {}
    folders = _folders_of_tables(Path(root))
    if len(folders) > 1:
        there = ", ".join(os.path.relpath(tables[0], root).partition(os.sep)[0] for tables in folders)
        raise SalpipeError(f"{shown(root)}: tables in several folders, {shown(there)}; give one of them")
    files = folders[0] if folders else []
    for file in files:
        with file_errors_explained(file), errors_of_arrow(file):
            opened = open_table(file)
            columns = _columns(opened.schema_arrow, file)
            others = [name for name in opened.schema_arrow.names if name not in IMAGE_COLUMNS]
            if others and not columns.label:
                unlabeled.setdefault(", ".join(others), file)
            own_names = _class_names(opened.schema_arrow, columns)
            records.extend(_records(file, opened, columns, labels, notes))
        if own_names and names and own_names != names:
            raise SalpipeError(f"{shown(file)}: names other classes than {shown(source)}; give one data set at a time")
        if own_names:
            names, source = own_names, file
    if not records:
        missing = f"no images in its tables{notes.cause()}" if files else "no tables (*.parquet)"
        raise SalpipeError(f"{shown(root)}: {missing}; give a folder of tables with a column image, or one of them")
    for others_there, file in unlabeled.items():
        reason = f"no column {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}, so its images are unlabeled"
        notes.remark(f"{os.path.basename(file)}, which has {others_there}", reason)
    _note_missing(files, notes)
    return catalogue(root, "parquet", records, labels, labels.classes(names, source), set(files), notes)


def _records(path: str, opened: Any, columns: _Columns, labels: Labels, notes: Notes) -> Iterator[ImageRecord]:
    """The images of one table with its labels."""
    above, file = os.path.split(path)
    stem, split = key_part(file[: -len(".parquet")]), split_of(file)
    if (part := os.path.basename(above)).lower() in SPLIT_FOLDERS:
        stem, file = f"{part}/{stem}", f"{part}/{file}"
        split = split_of(os.path.basename(path), SPLIT_FOLDERS[part.lower()])
    groups = row_groups(path)
    counts = [group.rows for group in groups]
    if min(counts, default=0) < 0 or sum(counts) * _MIN_ROW_BYTES > os.path.getsize(path):
        raise SalpipeError(f"{shown(path)}: claims more rows than there is room for; download it again")
    if columns.path:
        opened = open_table(path, metadata=opened.metadata, read_dictionary=[columns.path])
    row = -1
    for group, facts in enumerate(groups):
        if not facts.rows:
            continue
        chunk = facts.chunk(columns.bytes)
        if max(chunk.unpacked, chunk.packed) > _MAX_GROUP_BYTES:
            reason = f"more than {_MAX_GROUP_BYTES:,} bytes in row group {group}; write it with smaller row groups"
            raise SalpipeError(f"{shown(path)}: {reason}")
        length = chunk.packed // facts.rows
        for there, name, number in _facts(path, opened, group, facts, columns):
            row += 1
            if not there:
                notes.add(f"{file}: row {row}", "the path of an image, but not its bytes" if name else "no image")
                continue
            image, label = original(name), -1
            if number is not None:
                label = labels.add(number, image and image.wnid, file, row, split)
            elif columns.label and split is not Split.TEST:
                labels.unusable(NULL, file, row)
            key = image.key if image else f"{stem}/{row}"
            if not image and has_image_suffix(name):
                key = f"{key}.{name.rpartition('.')[2]}"
            yield ParquetRecord(key, path, label, split, None, (), 0, length, row=row)


def _facts(
    path: str, opened: Any, group: int, facts: RowGroup, columns: _Columns
) -> Iterator[tuple[bool, str, int | None]]:
    """For each row of a group: True if it has an image, the image's name, and its label, if any."""
    light = [column for column in (columns.path, columns.label) if column]
    chunk = facts.chunk(columns.bytes)
    for column in light:
        check_pages(path, facts.chunk(column), facts.rows, _MAX_LIGHT_BYTES)
    if chunk.nulls != 0:
        # only the images themselves show which rows have one; row by row, as in `_Rows`
        check_pages(path, chunk, facts.rows)
        batches = opened.iter_batches(1, row_groups=[group], columns=[columns.bytes, *light], use_threads=False)
    elif light:
        batches = opened.iter_batches(_LIGHT_ROWS, row_groups=[group], columns=light, use_threads=False)
    else:
        yield from itertools.repeat((True, "", None), facts.rows)
        return
    for batch in batches:
        leaves = _leaves(batch)
        count = batch.num_rows
        there = leaves[columns.bytes].is_valid().to_pylist() if columns.bytes in leaves else [True] * count
        names = _texts(leaves[columns.path]) if columns.path else [""] * count
        numbers = leaves[columns.label].to_pylist() if columns.label else [None] * count
        yield from zip(there, names, numbers, strict=True)


def _texts(array: Any) -> list[str]:
    """The texts of a dictionary-encoded array, which are untrusted and may not be UTF-8."""
    import pyarrow

    places = array.indices.unique()
    values = array.dictionary.take(places).cast(pyarrow.large_binary()).to_pylist()
    texts = {
        place: "" if text is None or len(text) > _MAX_NAME else text.decode("utf-8", "backslashreplace")
        for place, text in zip(places.to_pylist(), values, strict=True)
    }
    return [texts[place] for place in array.indices.to_pylist()]


def _leaves(batch: Any) -> dict[str, Any]:
    """The arrays of a batch by column name, those of a structure as `image.bytes`."""
    from pyarrow import types

    leaves: dict[str, Any] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if types.is_struct(array.type):
            leaves |= {f"{name}.{field.name}": part for field, part in zip(array.type, array.flatten(), strict=True)}
        else:
            leaves[name] = array
    return leaves


def _columns(schema: Any, path: str) -> _Columns:
    from pyarrow import types

    image = next((schema.field(name) for name in IMAGE_COLUMNS if schema.get_field_index(name) >= 0), None)
    label = next((schema.field(name) for name in LABEL_COLUMNS if schema.get_field_index(name) >= 0), None)
    if label is not None and not types.is_integer(label.type):
        raise SalpipeError(f"{shown(path)}: column {label.name} is {label.type}; give the classes as numbers")
    number = label and label.name
    # Arrow confuses a column named "image.bytes" with the bytes of the column image
    if image is not None and not any(name.startswith((f"{image.name}.", f"{number}.")) for name in schema.names):
        kinds = {field.name: str(field.type) for field in image.type} if types.is_struct(image.type) else {}
        if str(image.type) in _BYTES:
            return _Columns(image.name, None, number)
        if kinds.get("bytes") in _BYTES:
            path_column = f"{image.name}.path" if kinds.get("path") in _TEXTS else None
            return _Columns(f"{image.name}.bytes", path_column, number)
    raise SalpipeError(f"{shown(path)}: no column image with the bytes of images; give tables that have one")


def _class_names(schema: Any, columns: _Columns) -> tuple[str, ...]:
    """The names of classes that the `datasets` library writes beside the schema; empty without."""
    data = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        facts = parse_json(data) if len(data) <= _MAX_METADATA_BYTES else {}
        names = facts["info"]["features"][columns.label]["names"]
    except (DocumentError, LookupError, TypeError):
        return ()
    if not isinstance(names, list) or len(names) > _MAX_NAMES:
        return ()
    return tuple(map(class_name, names)) if all(isinstance(name, str) and name for name in names) else ()


def _note_missing(files: list[str], notes: Notes) -> None:
    """Note the missing parts of files such as train-00000-of-00257.parquet."""
    parts: dict[tuple[str, str], set[int]] = {}
    for match in filter(None, (_PART.fullmatch(os.path.basename(file)) for file in files)):
        parts.setdefault((match[1], match[3]), set()).add(int(match[2]))
    for (name, count), there in parts.items():
        for part in range(int(count)):
            if part not in there:
                notes.remark(f"{name}-{part:05d}-of-{count}.parquet", "a part of the data set that is not there")


def open_table(path: str, **options: Any) -> Any:
    """Open a parquet file with limits on memory; `options` are those of `ParquetFile`.

    Raises:
        SalpipeError: pyarrow is missing.
        ValueError, OSError: the file is damaged.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise SalpipeError(f"{shown(path)} needs pyarrow; pip install 'saliency-pipeline[parquet]'") from None
    check_footer(path)
    # without threads, which a forked process lacks, and without whole columns in memory
    options |= {"pre_buffer": False, "buffer_size": _BUFFER_BYTES, "thrift_container_size_limit": MAX_THRIFT_ITEMS}
    return parquet.ParquetFile(path, **options)


@contextmanager
def errors_of_arrow(path: str) -> Iterator[None]:
    """Raise Arrow's errors for a damaged file as OSError with a reason of one line."""
    try:
        yield
    except Exception as error:
        # ValueErrors come from page checks, and from Arrow for column names that it cannot decode
        arrows = type(error).__module__.startswith("pyarrow") or isinstance(error, ValueError)
        if arrows or (isinstance(error, OSError) and error.errno is None):
            reason = shown(str(error).partition("\n")[0][:200])
            raise OSError(errno.EIO, reason, path) from None
        raise


LAYOUTS = (Layout("parquet", "Hugging Face parquet: *.parquet with columns image and label", _recognize, _read),)
