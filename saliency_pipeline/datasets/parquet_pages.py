"""Row groups of an untrusted parquet file, and a bound on the memory that their columns take.

Arrow's Python classes for metadata kill the process if metadata contradict one another, so the footer is parsed here.
Arrow never checks the sizes in it: it unpacks up to 2 GiB per page according to the page's header, for which a thousand
bytes of zstd are enough. The headers are therefore checked before the pages are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from saliency_pipeline.contents import Contents, open_contents

MAX_PAGE_BYTES = 2**27
"""Largest unpacked page, unless it takes an eighth of that or more in the file, as compressed images do."""

MAX_LIGHT_BYTES = 2**26
"""Largest column of names or labels in a row group, unpacked."""

MIN_ROW_BYTES = 32
"""Fewest bytes per row of a file of images: more rows than that are a claim that would fill memory."""

MAX_FOOTER_BYTES = 2**25
"""Largest footer: a file with a million images in row groups of a hundred has about 8 MB."""

MAX_THRIFT_ITEMS = 2**17
"""Largest number of columns, row groups or entries of metadata: a column of 8 bytes takes 1,500 in memory."""

_MAX_FIELDS = 2**22
"""Largest number of fields of a footer: a million images in row groups of a hundred have about 700,000."""

_WORTH = 8
_MAX_DICTIONARY = 2**20
_HEADER_BYTES, _MAX_HEADER_BYTES = 2**12, 2**24  # usual size of a page's header, and Arrow's limit
_MAX_DEPTH = 16
_BYTE_ARRAY = 6  # of Type in parquet.thrift

_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # fields of PageHeader in parquet.thrift
_DELTA_BYTES = {6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY"}


class _Page(NamedTuple):
    """Header of a page: bytes unpacked and in the file, values of a dictionary, encoding and number of values."""

    unpacked: int
    packed: int
    dictionary: int
    encoding: int
    values: int


class Chunk(NamedTuple):
    """A column of a row group according to the footer: offsets and sizes of its pages; None for missing fields."""

    column: str
    is_bytes: bool
    data: int
    dictionary: int | None
    packed: int
    unpacked: int
    nulls: int | None

    @property
    def start(self) -> int:
        """Offset of its first page."""
        return self.dictionary if self.dictionary is not None and 0 < self.dictionary < self.data else self.data


class RowGroup(NamedTuple):
    """A row group: number of rows, and columns."""

    rows: int
    chunks: tuple[Chunk, ...]

    def chunk(self, column: str) -> Chunk:
        """The chunk of a column such as `image.bytes`. Raises ValueError if there is none."""
        for chunk in self.chunks:
            if chunk.column == column:
                return chunk
        raise ValueError(f"a row group without the column {column}")


def check_footer(path: str) -> None:
    """Refuse a file whose metadata alone would fill memory. Files that are no parquet are left to Arrow.

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


def check_rows(path: str, groups: list[RowGroup]) -> None:
    """Refuse a file that claims more rows than its bytes have room for.

    Raises:
        ValueError: it does.
        OSError: the file cannot be read.
    """
    counts = [group.rows for group in groups]
    with open_contents(path) as file:
        if min(counts, default=0) < 0 or sum(counts) * MIN_ROW_BYTES > file.size:
            raise ValueError("claims more rows than there is room for")


def _footer(path: str, most: int) -> bytes:
    """The first bytes of the metadata at the end of a file."""
    with open_contents(path) as file:
        size = file.size
        tail = file.read(8, max(size - 8, 0))
        length = int.from_bytes(tail[:4], "little") if tail[4:] == b"PAR1" else 0
        if length > MAX_FOOTER_BYTES:
            raise ValueError(f"its footer has {length:,} bytes, more than {MAX_FOOTER_BYTES:,}")
        return file.read(min(length, most), max(size - 8 - length, 0))


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


def check_pages(path: str, chunk: Chunk, rows: int, total: int | None = None, values: int | None = None) -> None:
    """Refuse a column of a row group that would take too much memory.

    Args:
        path: the file.
        chunk: a column without lists.
        rows: rows of the row group.
        total: largest number of unpacked bytes of all pages, if the column is read as a whole.
        values: largest number of values of all pages: encodings store many equal ones in a few bytes.

    Raises:
        ValueError: with the reason: a page or the column is too large, or its headers are damaged.
        OSError: the file cannot be read.
    """
    unpacked = count = 0
    for page in _pages(path, chunk):
        unpacked, count = unpacked + page.unpacked, count + page.values
        if values is not None and not 0 <= page.values <= count <= values:
            raise ValueError(f"column {chunk.column} has more than {values:,} values in a row group")
        if page.unpacked > max(MAX_PAGE_BYTES, _WORTH * page.packed):
            raise ValueError(f"a page of column {chunk.column} unpacks to {page.unpacked:,} bytes")
        if total is not None and unpacked > total:
            raise ValueError(f"column {chunk.column} unpacks to more than {total:,} bytes in a row group")
        if page.dictionary > max(rows, _MAX_DICTIONARY):
            raise ValueError(f"a dictionary of {page.dictionary:,} values in column {chunk.column}")
        # Arrow unpacks the whole list of lengths, of any size, before the first value
        if page.encoding in _DELTA_BYTES and chunk.is_bytes:
            name = _DELTA_BYTES[page.encoding]
            raise ValueError(f"column {chunk.column} is in {name}, not in plain or dictionary encoding")


def _pages(path: str, chunk: Chunk) -> Iterator[_Page]:
    at = chunk.start
    with open_contents(path) as file:
        end = min(at + chunk.packed, file.size)
        while 0 <= at < end:
            fields, length = _header(file, at, end)
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
                _number(details.get(_DATA_V2, {}), 1, _number(details.get(_DATA, {}), 1, 0)),
            )


def _header(file: Contents, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Fields and length of the page header at an offset."""
    size = _HEADER_BYTES
    while True:
        data = file.read(min(size, end - at), at)
        try:
            return _structure(data, 0, 0, [_MAX_FIELDS])
        except IndexError:
            # its statistics may contain a whole value
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                raise ValueError("damaged headers of pages") from None
            size *= 16
        except ValueError:
            raise ValueError("damaged headers of pages") from None


def _structure(data: bytes, at: int, depth: int, left: list[int]) -> tuple[dict[int, Any], int]:
    """Parse a structure of Thrift's compact protocol and return its end: numbers, texts, lists and structures.

    Args:
        data: bytes around it.
        at: its offset.
        depth: number of structures around it.
        left: number of fields and elements that are still allowed.

    Raises:
        IndexError: it continues beyond the data.
        ValueError: it is damaged, or has types that metadata never have.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        delta, at = data[at] >> 4, at + 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        if number in fields:  # Arrow might use the other one
            raise ValueError("damaged metadata")
        # the kind of a boolean is its value
        fields[number], at = (None, at) if kind in (1, 2) else _value(data, at, kind, depth, left)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int, left: list[int]) -> tuple[Any, int]:
    """A value, or None for kinds that are not needed, and its end."""
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
