"""The row groups of a parquet file and how much memory their columns take. What columns mean: `parquet.py`.

Arrow's Python classes for metadata end the process where some of a file's metadata contradict one another, so the
footer is read here. The sizes in it are claims that Arrow never checks: it unpacks what the header of each page says,
up to 2 GiB for a page, and a thousand bytes of zstd can hold as much. The headers are therefore read before the pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from saliency_pipeline.documents import open_regular

MAX_PAGE_BYTES = 2**27
"""Most that a page may unpack to, unless it takes an eighth as much in the file or more, as images that are compressed
already do."""

MAX_FOOTER_BYTES = 2**25
"""A file with a million images in row groups of a hundred has a footer of about 8 MB."""

MAX_THRIFT_ITEMS = 2**17
"""Most columns, row groups or entries of metadata: a column takes 8 bytes in the file and 1,500 in memory."""

_MAX_FIELDS = 2**22
"""Most fields of a footer: a million images in row groups of a hundred have about 700,000 of them."""

_WORTH = 8
_MAX_DICTIONARY = 2**20
_HEADER_BYTES, _MAX_HEADER_BYTES = 2**12, 2**24  # what is usual, and what Arrow reads at most
_MAX_DEPTH = 16
_BYTE_ARRAY = 6  # of Type in parquet.thrift

_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # fields of PageHeader in parquet.thrift
_DELTA_BYTES = {6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY"}


class _Page(NamedTuple):
    """What the header of a page says: bytes unpacked and in the file, values of a dictionary, encoding of values."""

    unpacked: int
    packed: int
    dictionary: int
    encoding: int


class Chunk(NamedTuple):
    """A column of a row group, as the footer has it: where its pages begin and what they take; None: not said."""

    column: str
    is_bytes: bool
    data: int
    dictionary: int | None
    packed: int
    unpacked: int
    nulls: int | None


class RowGroup(NamedTuple):
    """Rows that lie together, by columns."""

    rows: int
    chunks: tuple[Chunk, ...]

    def chunk(self, column: str) -> Chunk:
        """That of a column, `image.bytes` for instance. Raises ValueError where there is none."""
        chunk_there = next((chunk for chunk in self.chunks if chunk.column == column), None)
        if chunk_there is None:
            raise ValueError(f"a row group without the column {column}")
        return chunk_there


def check_footer(path: str) -> None:
    """Refuse a file whose metadata alone would fill memory. What is no parquet file is left to Arrow.

    Raises:
        ValueError: with the reason.
        OSError: the file cannot be read.
    """
    _footer(path, 0)


def row_groups(path: str) -> list[RowGroup]:
    """The row groups of a parquet file that Arrow has opened.

    Raises:
        ValueError: its metadata is damaged.
        OSError: the file cannot be read.
    """
    data = _footer(path, MAX_FOOTER_BYTES)
    try:
        fields, _ = _structure(data, 0, 0, [_MAX_FIELDS])
        return [_row_group(group) for group in fields.get(4, [])]
    except (IndexError, KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("damaged metadata") from None


def _footer(path: str, most: int) -> bytes:
    """The first bytes of the metadata at the end of a file."""
    with open(path, "rb", opener=open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        tail = os.pread(file.fileno(), 8, max(size - 8, 0))
        length = int.from_bytes(tail[:4], "little") if tail[4:] == b"PAR1" else 0
        if length > MAX_FOOTER_BYTES:
            raise ValueError(f"its footer has {length:,} bytes, more than {MAX_FOOTER_BYTES:,}")
        return os.pread(file.fileno(), min(length, most), max(size - 8 - length, 0))


def _row_group(fields: dict[int, Any]) -> RowGroup:
    chunks = []
    for facts in (column[3] for column in fields[1]):
        chunks.append(
            Chunk(
                ".".join(part.decode("utf-8", "replace") for part in facts[3]),
                _number(facts, 1) == _BYTE_ARRAY,
                _number(facts, 9),
                _number(facts, 11) if 11 in facts else None,
                _number(facts, 7),
                _number(facts, 6),
                facts.get(12, {}).get(3),
            )
        )
    return RowGroup(_number(fields, 3), tuple(chunks))


def check_pages(path: str, chunk: Chunk, rows: int, total: int | None = None) -> None:
    """Refuse a column of a row group that would unpack to more than it is worth.

    Args:
        path: the file.
        chunk: a column without lists.
        rows: of the row group.
        total: most bytes that all pages of the column may unpack to, where it is read as a whole.

    Raises:
        ValueError: with the reason: a page or the column is too large, or its headers make no sense.
        OSError: the file cannot be read.
    """
    unpacked = 0
    for page in _pages(path, chunk):
        unpacked += page.unpacked
        if page.unpacked > max(MAX_PAGE_BYTES, _WORTH * page.packed):
            raise ValueError(f"a page of column {chunk.column} unpacks to {page.unpacked:,} bytes")
        if total is not None and unpacked > total:
            raise ValueError(f"column {chunk.column} unpacks to more than {total:,} bytes in a row group")
        if page.dictionary > max(rows, _MAX_DICTIONARY):
            raise ValueError(f"a dictionary of {page.dictionary:,} values in column {chunk.column}")
        # the list of lengths, as large as it claims, would be unpacked before the first value is
        if page.encoding in _DELTA_BYTES and chunk.is_bytes:
            name = _DELTA_BYTES[page.encoding]
            raise ValueError(f"column {chunk.column} is in {name}, not in plain or dictionary encoding")


def _pages(path: str, chunk: Chunk) -> Iterator[_Page]:
    at = chunk.data
    if chunk.dictionary is not None and 0 < chunk.dictionary < at:
        at = chunk.dictionary
    with open(path, "rb", 0, opener=open_regular) as file:
        end = min(at + chunk.packed, os.fstat(file.fileno()).st_size)
        while 0 <= at < end:
            fields, length = _header(file.fileno(), at, end)
            unpacked, packed = _number(fields, 2), _number(fields, 3)
            details = {number: fields[number] for number in (_DATA, _DICTIONARY, _DATA_V2) if number in fields}
            if unpacked < 0 or packed < 0 or not all(isinstance(detail, dict) for detail in details.values()):
                raise ValueError("damaged headers of pages")
            at += length + packed
            yield _Page(
                unpacked,
                min(packed, end),
                _number(details.get(_DICTIONARY, {}), 1, 0),
                _number(details.get(_DATA_V2, {}), 4, _number(details.get(_DATA, {}), 2, 0)),
            )


def _header(file: int, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Fields of the page header at a place, and how many bytes it takes."""
    size = _HEADER_BYTES
    while True:
        data = os.pread(file, min(size, end - at), at)
        try:
            return _structure(data, 0, 0, [_MAX_FIELDS])
        except IndexError:
            # statistics in it may hold a whole value
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                raise ValueError("damaged headers of pages") from None
            size *= 16
        except ValueError:
            raise ValueError("damaged headers of pages") from None


def _structure(data: bytes, at: int, depth: int, left: list[int]) -> tuple[dict[int, Any], int]:
    """A structure in Thrift's compact protocol and where it ends: numbers, texts, lists and structures.

    Args:
        data: what it lies in.
        at: where.
        depth: of structures around it.
        left: how many fields and elements may still come.

    Raises:
        IndexError: it goes on beyond the data.
        ValueError: it is none, or holds what no metadata does.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        delta, at = data[at] >> 4, at + 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        if number in fields:  # Arrow might take the other one
            raise ValueError("damaged metadata")
        # of a truth value the kind is the value
        fields[number], at = (None, at) if kind in (1, 2) else _value(data, at, kind, depth, left)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int, left: list[int]) -> tuple[Any, int]:
    """A value of a kind, None for those that are of no use here, and where it ends."""
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH:
        raise ValueError("damaged metadata")
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 8:
        length, at = _varint(data, at)
        return data[at : at + length], at + length
    if kind == 12:
        return _structure(data, at, depth + 1, left)
    if kind in (9, 10):
        count, kind, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _varint(data, at)
        values = []
        for _ in range(count):
            value, at = _value(data, at, kind, depth + 1, left)
            values.append(value)
        return values, at
    if kind in (1, 2, 3, 7):
        return None, at + (8 if kind == 7 else 1)
    raise ValueError("damaged metadata")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("damaged metadata")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _number(fields: dict[int, Any], number: int, otherwise: int | None = None) -> int:
    value = fields.get(number, otherwise)
    if not isinstance(value, int):
        raise ValueError("damaged headers of pages")
    return value
