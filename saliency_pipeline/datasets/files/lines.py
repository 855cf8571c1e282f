"""Lines and CSV rows of untrusted text files, with bounded memory."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NoReturn

from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

MAX_LINE_BYTES = 2**16
"""Longest line: the most boxes of one image take a tenth of this."""

MAX_LINES, MAX_LIST_BYTES = 2**22, 2**27
"""Longest list, since its contents stay in memory. LOC_train_solution.csv has about 545,000 lines of 45 bytes."""


class Lines:
    """The numbered lines of a text file in UTF-8.

    Args:
        path: the file, as messages name it.
        data: its contents if it is in an archive; read from `path` by default.
    """

    def __init__(self, path: str | os.PathLike[str], data: bytes | None = None) -> None:
        self.path = os.fspath(path)
        self._data = data

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Number, from 1, and text of each line that is not blank, without trailing white space.

        Raises:
            SalpipeError: the file cannot be read, a line is not UTF-8 or longer than `MAX_LINE_BYTES`, or there are
                more than `MAX_LINES` or `MAX_LIST_BYTES`.
        """
        with file_errors_explained(self.path), self._open() as file:
            number = total = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                total += len(line)
                if number > MAX_LINES or total > MAX_LIST_BYTES:
                    self.fail(number, "longer than any list of this kind; download it again")
                if len(line) > MAX_LINE_BYTES:
                    self.fail(number, f"longer than {MAX_LINE_BYTES:,} bytes; give the list as it was published")
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
                except UnicodeDecodeError:
                    self.fail(number, "not UTF-8; save the file as UTF-8 text")
                if text:
                    yield number, text

    def read(self, limit: int) -> bytes:
        """The first `limit` bytes of the file, and one more if there are more.

        Raises:
            SalpipeError: the file cannot be read.
        """
        with file_errors_explained(self.path), self._open() as file:
            return file.read(limit + 1)

    def _open(self) -> BinaryIO:
        return open(self.path, "rb", opener=open_regular) if self._data is None else BytesIO(self._data)

    def fail(self, number: int, reason: str) -> NoReturn:
        """Raise SalpipeError for a line."""
        raise SalpipeError(f"{shown(self.path)}:{number}: {reason}")

    def rows(self, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and cells of each row of a CSV file with a header.

        Raises:
            SalpipeError: as for the lines; or one of `columns` is missing in the header or in a row.
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
