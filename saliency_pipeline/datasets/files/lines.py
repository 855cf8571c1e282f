"""Lines of text files from outside, one after the other and none without end. What a line means stands elsewhere."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NoReturn

from saliency_pipeline.documents import open_regular, remedy_for
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

MAX_LINE_BYTES = 2**16
"""A longer line is none of a list: the most boxes of one image take a tenth of this."""

MAX_LINES, MAX_LIST_BYTES = 2**22, 2**27
"""What is made of a list stays in memory. The longest, LOC_train_solution.csv, has about 545,000 lines of 45 bytes."""


class Lines:
    """The lines of a text file in UTF-8, numbered; nothing of it is kept.

    Args:
        path: the file, as messages name it.
        data: what it holds, where it lies in an archive; read from `path` where left out.
    """

    def __init__(self, path: str | os.PathLike[str], data: bytes | None = None) -> None:
        self.path = os.fspath(path)
        self._data = data

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Number, from 1, and text of each line that is not blank, without the white space at its end.

        Raises:
            SalpipeError: the file cannot be read, a line is no UTF-8 or longer than `MAX_LINE_BYTES`, or there are more
                than `MAX_LINES` or `MAX_LIST_BYTES` of them.
        """
        try:
            with self._open() as file:
                number = total = 0
                while line := file.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    total += len(line)
                    if number > MAX_LINES or total > MAX_LIST_BYTES:
                        self.fail(number, "the list does not end where it should; download it again")
                    if len(line) > MAX_LINE_BYTES:
                        self.fail(number, f"longer than {MAX_LINE_BYTES:,} bytes; give the list as it was published")
                    try:
                        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
                    except UnicodeDecodeError:
                        self.fail(number, "not UTF-8; save the file as UTF-8 text")
                    if text:
                        yield number, text
        except OSError as error:
            raise self._unreadable(error) from None

    def read(self, limit: int) -> bytes:
        """The first bytes of the file, one more than `limit` where there are more.

        Raises:
            SalpipeError: the file cannot be read.
        """
        try:
            with self._open() as file:
                return file.read(limit + 1)
        except OSError as error:
            raise self._unreadable(error) from None

    def _open(self) -> BinaryIO:
        return open(self.path, "rb", opener=open_regular) if self._data is None else BytesIO(self._data)

    def _unreadable(self, error: OSError) -> SalpipeError:
        return SalpipeError(f"{shown(self.path)}: {error.strerror}; {remedy_for(error)}")

    def fail(self, number: int, reason: str) -> NoReturn:
        """Raise the SalpipeError of one line."""
        raise SalpipeError(f"{shown(self.path)}:{number}: {reason}")

    def rows(self, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
        """Number and cells of each row of a CSV file whose first line names its columns.

        Raises:
            SalpipeError: as for the lines; or one of `columns` is not in the header, or a row ends before them.
        """
        header: list[str] = []
        for number, line in self:
            try:
                (cells,) = csv.reader([line], strict=True)
            except (csv.Error, ValueError):
                self.fail(number, "not a row of a CSV file")
            if not header:
                header = [cell.strip() for cell in cells]
                for column in columns:
                    if column not in header:
                        self.fail(number, f"no column {column}; its first line must name the columns")
                continue
            row = dict(zip(header, cells, strict=False))
            if any(column not in row for column in columns):
                self.fail(number, f"{len(cells)} columns, not {len(header)}")
            yield number, row
