"""Rows of the tables of an export: descriptions of images, and the columns of maps of a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from saliency_pipeline.datasets.parquet_pages import MAX_LIGHT_BYTES, RowGroup, check_pages, check_rows, row_groups
from saliency_pipeline.datasets.parquet_rows import errors_of_arrow, open_table
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

_MAX_LIGHT_VALUES = 2**23
"""Most values of a column of a row group but those of images and maps: each takes some 60 bytes as a Python object."""

_IMAGE = "image.bytes"


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
        row: its number in the file.
        group: its row group.
        row_of_group: its number there.
        length: mean number of bytes per image of the row group.
        values: values of the columns that were read, by name.
    """

    row: int
    group: int
    row_of_group: int
    length: int
    values: dict[str, Any]


def read_rows(path: str, columns: Sequence[str], optional: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a table, without images and maps.

    Args:
        path: the table.
        columns: names of columns.
        optional: names of further columns, which are read if they are there.

    Raises:
        SalpipeError: a column is missing, or pyarrow.
        OSError: the table is damaged; the reason is one line.
    """
    with errors_of_arrow(path):
        opened = open_table(path)
        there = opened.schema_arrow.names
        if missing := [name for name in (*columns, "image") if name not in there]:
            raise SalpipeError(f"{shown(path)}: no column {missing[0]}; run the same 'salpipe convert' again")
        names = [*columns, *(name for name in optional if name in there)]
        first, groups = 0, row_groups(path)
        check_rows(path, groups)
        for group, facts in enumerate(groups):
            check_columns(path, facts, names, MAX_LIGHT_BYTES, _MAX_LIGHT_VALUES)
            rows = opened.read_row_group(group, columns=names, use_threads=False).to_pylist() if facts.rows else []
            length = facts.chunk(_IMAGE).packed // max(1, facts.rows)
            for place, values in enumerate(rows):
                yield TableRow(first + place, group, place, length, values)
            first += len(rows)


def read_columns(path: str, group: int, names: Sequence[str], most: int, per_row: int) -> dict[str, Any]:
    """Columns of a row group as Arrow arrays, by name.

    Args:
        path: the table.
        group: number of the row group.
        names: names of the columns.
        most: largest number of unpacked bytes per column.
        per_row: largest number of values per row and column.

    Raises:
        OSError: the table is damaged; the reason is one line.
    """
    with errors_of_arrow(path):
        groups = row_groups(path)
        check_rows(path, groups)
        check_columns(path, groups[group], names, most, per_row * groups[group].rows)
        table = open_table(path).read_row_group(group, columns=list(names), use_threads=False)
        if missing := [name for name in names if name not in table.column_names]:
            raise ValueError(f"no column {missing[0]}")
        return {name: table.column(name).combine_chunks() for name in names}


def check_columns(path: str, group: RowGroup, names: Sequence[str], most: int, values: int) -> None:
    """Refuse columns, also nested ones, that would take too much memory. Raises ValueError with the reason."""
    for chunk in group.chunks:
        if any(chunk.column == name or chunk.column.startswith(f"{name}.") for name in names):
            check_pages(path, chunk, max(group.rows, most), most, values)
