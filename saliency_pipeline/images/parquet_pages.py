"""How much memory a column of a parquet file takes, from the headers of its pages. What columns mean: `parquet.py`.

The sizes in a file's metadata are claims that Arrow never checks: it unpacks what the header of each page says, up to
2 GiB for a page, and a thousand bytes of zstd can hold as much. The headers are therefore read before the pages are.
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

_WORTH = 8
_MAX_DICTIONARY = 2**20
_HEADER_BYTES, _MAX_HEADER_BYTES = 2**12, 2**24  # what is usual, and what Arrow reads at most
_MAX_DEPTH = 8

_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # fields of PageHeader in parquet.thrift
_DELTA_BYTES = {6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY"}


class _Page(NamedTuple):
    """What the header of a page says: bytes unpacked and in the file, values of a dictionary, encoding of values."""

    unpacked: int
    packed: int
    dictionary: int
    encoding: int


def check_footer(path: str) -> None:
    """Refuse a file whose metadata alone would fill memory. What is no parquet file is left to Arrow.

    Raises:
        ValueError: with the reason.
        OSError: the file cannot be read.
    """
    with open(path, "rb", opener=open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        tail = os.pread(file.fileno(), 8, max(size - 8, 0))
    if tail[4:] == b"PAR1" and (length := int.from_bytes(tail[:4], "little")) > MAX_FOOTER_BYTES:
        raise ValueError(f"its footer has {length:,} bytes, more than {MAX_FOOTER_BYTES:,}")


def check_pages(path: str, chunk: Any, rows: int, total: int | None = None) -> None:
    """Refuse a column of a row group that would unpack to more than it is worth.

    Args:
        path: the file.
        chunk: `pyarrow.parquet.ColumnChunkMetaData` of a column without lists.
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
            raise ValueError(f"a page of column {chunk.path_in_schema} unpacks to {page.unpacked:,} bytes")
        if total is not None and unpacked > total:
            raise ValueError(f"column {chunk.path_in_schema} unpacks to more than {total:,} bytes in a row group")
        if page.dictionary > max(rows, _MAX_DICTIONARY):
            raise ValueError(f"a dictionary of {page.dictionary:,} values in column {chunk.path_in_schema}")
        # the list of lengths, as large as it claims, would be unpacked before the first value is
        if page.encoding in _DELTA_BYTES and chunk.physical_type == "BYTE_ARRAY":
            name = _DELTA_BYTES[page.encoding]
            raise ValueError(f"column {chunk.path_in_schema} is in {name}, not in plain or dictionary encoding")


def _pages(path: str, chunk: Any) -> Iterator[_Page]:
    at = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    with open(path, "rb", buffering=0) as file:
        end = min(at + chunk.total_compressed_size, os.fstat(file.fileno()).st_size)
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
            return _structure(data, 0, 0)
        except IndexError:
            # statistics in it may hold a whole value
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                raise ValueError("damaged headers of pages") from None
            size *= 16


def _structure(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """A structure in Thrift's compact protocol and where it ends: numbers and structures; texts are passed over.

    Raises:
        IndexError: it goes on beyond the data.
        ValueError: it is none, or holds what no page header does.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        delta, at = data[at] >> 4, at + 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        value: Any = None
        if kind in (4, 5, 6):
            value, at = _zigzag(data, at)
        elif kind == 3:
            at += 1
        elif kind == 7:
            at += 8
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12 and depth < _MAX_DEPTH:
            value, at = _structure(data, at, depth + 1)
        elif kind not in (1, 2):  # of which the kind is the value
            raise ValueError("damaged headers of pages")
        fields[number] = value
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("damaged headers of pages")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _number(fields: dict[int, Any], number: int, otherwise: int | None = None) -> int:
    value = fields.get(number, otherwise)
    if not isinstance(value, int):
        raise ValueError("damaged headers of pages")
    return value
