"""CSV and TSV files: written so that no spreadsheet takes a name for a formula, and read back."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from saliency_pipeline.documents import read_regular
from saliency_pipeline.files import write_atomically

# Cells that a spreadsheet would take for a formula (the four signs in full width as well), and those of them that are
# only numbers. A cell that begins so after apostrophes of its own has one more, so that the way back is known.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|inf)")

# A carriage return, which the csv module of Python 3.11 does not quote, would end the row, and what separates cells
# elsewhere in the world would make two of one, the second perhaps a formula.
_SEPARATORS = frozenset("\r;\t")
_MAX_BYTES = 2**29


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, whole or not at all.

    Names are quoted where they must be. One that a spreadsheet would take for a formula, since it begins with = + - @,
    a tab or an end of line, has an apostrophe before it, as OWASP recommends (CSV injection); `read_table` takes it off
    again. Texts of numbers are left alone. Of numbers six digits are written, about what float32 can answer for.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    table = io.StringIO()
    minimal, full = (
        csv.writer(table, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in itertools.chain([header], rows):
        cells = [_cell(value) for value in row]
        odd = any(_SEPARATORS.intersection(cell) for cell in cells if isinstance(cell, str))
        (full if odd else minimal).writerow(cells)
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(path, table.getvalue().encode("utf-8", "replace"))


def read_table(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[tuple[str, ...]]:
    """Some columns of a table, row by row, as `write_table` writes it.

    Args:
        path: the table, in UTF-8, with or without a byte order mark; its first line names the columns.
        columns: names of the wanted ones.
        delimiter: what separates cells.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file of at most `_MAX_BYTES`, no UTF-8, no CSV, lacks a column, or a row has
            other columns than the first.
    """
    text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if text else [[]]
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"its first line names no column {missing[0]!r}")
        places = [header.index(name) for name in columns]
        if any(len(row) != len(header) for row in rows):
            raise ValueError(f"a row of {path.name} has other columns than the first")
        return [tuple(_value(row[place]) for place in places) for row in rows]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _cell(value: object) -> object:
    """What is written of a value; see `write_table`."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _value(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
