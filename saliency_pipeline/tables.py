"""CSV and TSV files, safe for spreadsheets: names that look like formulas are escaped, and unescaped when read."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from saliency_pipeline.documents import read_regular
from saliency_pipeline.files import write_atomically

# Cells that a spreadsheet would take for a formula (full-width signs included), and those that are only numbers. A
# cell that has apostrophes before such a beginning gets one more, so that reading restores it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|inf)")

# A carriage return, which Python 3.11's csv module does not quote, would end the row; separators of other locales would
# split a cell, whose second half may look like a formula.
_SEPARATORS = frozenset("\r;\t")
_MAX_BYTES = 2**29


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, atomically.

    A name that a spreadsheet would take for a formula, as it begins with = + - @, a tab or an end of line, gets an
    apostrophe in front, as OWASP recommends (CSV injection); `read_table` removes it. Texts of numbers are left alone.
    Floats are written with six digits, about the precision of float32.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    table = io.StringIO()
    minimal, full = (
        csv.writer(table, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in itertools.chain([header], rows):
        cells = [_cell(value) for value in row]
        ambiguous = any(_SEPARATORS.intersection(cell) for cell in cells if isinstance(cell, str))
        (full if ambiguous else minimal).writerow(cells)
    # names from untrusted files may not be valid UTF-8
    write_atomically(path, table.getvalue().encode("utf-8", "replace"))


def read_table(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[tuple[str, ...]]:
    """Read columns of a table, row by row.

    Args:
        path: the table, in UTF-8, with or without a byte order mark; its first line names the columns.
        columns: names of the columns to return.
        delimiter: separator of cells.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file of at most `_MAX_BYTES`, not UTF-8, not CSV, lacks a column, or a row has
            more or fewer columns than the first.
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
    """Format and escape a value; see `write_table`."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _value(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
