"""Layout `parquet`: tables of the Hugging Face Hub with an image and a label per row."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_pipeline.datasets.files.errors import file_errors_explained, folder_errors_explained
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS, has_class_folders
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.parquet_pages import MAX_LIGHT_BYTES, RowGroup, check_pages, check_rows, row_groups
from saliency_pipeline.datasets.parquet_rows import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Columns,
    ParquetRecord,
    columns_of,
    errors_of_arrow,
    leaves_of,
    open_table,
)
from saliency_pipeline.datasets.samples import NULL, Labels, catalogue, original, split_of
from saliency_pipeline.documents import DocumentError, parse_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name, has_image_suffix, key_part, natural
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

_MAX_GROUP_BYTES = 2**31
_MAX_METADATA_BYTES = 2**24
_MAX_NAME = 4096
_MAX_FILE_NAME = 255
_FEW_JUMPS = 16  # rows that may be out of order in any table, besides one in a hundred
_MAX_NAMES = 2**20  # of classes
_LIGHT_ROWS = 2**16
_MANY, _GLANCE = 16, 4096  # of folders that can be configurations, and of entries that are looked at in each

# metadata.parquet describes image files beside it
_TABLE = re.compile(r"(?!\.|metadata\.).*\.parquet", re.DOTALL | re.IGNORECASE)
_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\b.*", re.DOTALL)


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
        return bool(columns_of(open_table(table).schema_arrow, table))
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
    image_names: list[str] = []
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
            columns = columns_of(opened.schema_arrow, file)
            others = [name for name in opened.schema_arrow.names if name not in IMAGE_COLUMNS]
            if others and not columns.label:
                unlabeled.setdefault(", ".join(others), file)
            own_names = _class_names(opened.schema_arrow, columns)
            for record, image_name in _records(file, opened, columns, labels, notes):
                records.append(record)
                image_names.append(image_name)
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
    keys = _folder_keys(records, image_names, names)
    if keys is not None:
        records = [replace(record, key=key) for record, key in zip(records, keys, strict=True)]
    return catalogue(root, "parquet", records, labels, labels.classes(names, source), set(files), notes)


def _folder_keys(
    records: Sequence[ImageRecord], image_names: Sequence[str], classes: Sequence[str]
) -> list[str] | None:
    """The keys of the images in folders of their classes, if the rows are nearly in the order of these keys.

    So the same images have the same keys however they are packed. In other tables keys are numbers of rows: images are
    read in the order of their keys, and each that does not follow its neighbor may cost a whole row group.

    Args:
        records: the images, with the table's own labels and their rows as keys.
        image_names: the names of their files; empty for none.
        classes: the table's own names of its classes.
    """
    keys: list[str] = []
    for record, name in zip(records, image_names, strict=True):
        if not name or not 0 <= record.label < len(classes):
            return None
        parts = (classes[record.label], name)
        if not all(map(_can_be_a_file, parts)):
            return None
        split = () if record.split is Split.NONE else (record.split.name.lower(),)
        keys.append("/".join((*split, *map(key_part, parts))))
    order = sorted(range(len(keys)), key=lambda row: natural(keys[row]))
    jumps = sum(row != before + 1 for before, row in itertools.pairwise(order))
    return keys if jumps <= _FEW_JUMPS + len(keys) // 100 and len(set(keys)) == len(keys) else None


def _can_be_a_file(name: str) -> bool:
    """Return whether a file or folder can have a name: untrusted ones may be long, paths, or no UTF-8."""
    if len(name) > _MAX_FILE_NAME or "/" in name or "\0" in name or name in (".", ".."):
        return False
    with suppress(UnicodeEncodeError):
        return len(name.encode()) <= _MAX_FILE_NAME
    return False


def _records(
    path: str, opened: Any, columns: Columns, labels: Labels, notes: Notes
) -> Iterator[tuple[ImageRecord, str]]:
    """The images of one table with its labels, and for `_folder_keys` the names of their files."""
    above, file = os.path.split(path)
    stem, split = key_part(file[: -len(".parquet")]), split_of(file)
    if (part := os.path.basename(above)).lower() in SPLIT_FOLDERS:
        stem, file = f"{part}/{stem}", f"{part}/{file}"
        split = split_of(os.path.basename(path), SPLIT_FOLDERS[part.lower()])
    groups = row_groups(path)
    check_rows(path, groups)
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
            named = not image and has_image_suffix(name)
            if named:
                key = f"{key}.{name.rpartition('.')[2]}"
            record = ParquetRecord(key, path, label, split, None, (), 0, length, row=row)
            yield record, name if named and _can_be_a_file(name) else ""


def _facts(
    path: str, opened: Any, group: int, facts: RowGroup, columns: Columns
) -> Iterator[tuple[bool, str, int | None]]:
    """For each row of a group: True if it has an image, the image's name, and its label, if any."""
    light = [column for column in (columns.path, columns.label) if column]
    chunk = facts.chunk(columns.bytes)
    for column in light:
        check_pages(path, facts.chunk(column), facts.rows, MAX_LIGHT_BYTES)
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
        leaves = leaves_of(batch)
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


def _class_names(schema: Any, columns: Columns) -> tuple[str, ...]:
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


LAYOUTS = (Layout("parquet", "Hugging Face parquet: *.parquet with columns image and label", _recognize, _read),)
