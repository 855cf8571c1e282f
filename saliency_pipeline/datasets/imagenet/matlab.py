"""Arrays of structures in an untrusted MATLAB file.

`scipy.io.loadmat` recurses into nested cells on the C stack, so that half a megabyte of them kills the process,
decompresses without a limit, and allocates arrays of any claimed size. This reader goes two levels deep.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

MAX_BYTES: Final = 2**23
"""Largest file, also decompressed; ImageNet's meta.mat has about one million bytes."""

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCTURE, _TEXT = 2, 4  # classes of a matrix; numbers have 6 to 15
_UTF16 = {3, 4, 17}
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}

Value = str | int | float | None
"""A text, a single number, or None for anything else."""


def structures(data: bytes, name: str) -> list[dict[str, Value]]:
    """The elements of an array of structures, as the values of fields by name.

    Args:
        data: a little-endian MAT-file of level 5 (MathWorks, MAT-File Format, chapter 1), compressed or not.
        name: name of the variable.

    Raises:
        ValueError: there is no such variable or it is no array of structures; the file is damaged or too large.
    """
    if data[124:128] != b"\0\1IM" or len(data) > MAX_BYTES:
        raise ValueError("no MAT-file of level 5")
    left = MAX_BYTES
    for kind, body in _elements(memoryview(data)[_HEADER_BYTES:]):
        if kind == _COMPRESSED:
            unpacked = _unpack(body, left)
            left -= len(unpacked)
            kind, body = next(_elements(memoryview(unpacked)), (0, body))
        if kind == _MATRIX and (elements := _structures(body, name.encode())) is not None:
            return elements
    raise ValueError(f"no {name}")


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of each data element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # up to four bytes are within the tag
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            start, step = at + 8, 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data) or (step == 8 and size > 4):
            raise ValueError("cut short")
        yield kind, data[start : start + size]
        at += step


def _unpack(body: memoryview, limit: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(body, limit + 1)  # 0 would mean no limit
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(unpacked) > limit or not unpacking.eof:
        raise ValueError("cut short or too large")
    return unpacked


def _structures(matrix: memoryview, name: bytes) -> list[dict[str, Value]] | None:
    """The elements of an array of structures; None if the matrix has another name."""
    parts = _elements(matrix)
    (_, flags), _, (_, called) = (next(parts, (0, matrix[:0])) for _ in range(3))
    if called != name:
        return None
    (_, length), (_, fields) = (next(parts, (0, matrix[:0])) for _ in range(2))
    if bytes(flags[:1]) != bytes([_STRUCTURE]) or len(length) != 4 or not (size := int.from_bytes(length, "little")):
        raise ValueError("no array of structures")
    names = [bytes(fields[at : at + size]).partition(b"\0")[0].decode("latin-1") for at in range(0, len(fields), size)]
    if not names:
        raise ValueError("no fields")
    cells = [cell for _, cell in parts]
    return [
        {field: _value(cell) for field, cell in zip(names, cells[at : at + len(names)], strict=False)}
        for at in range(0, len(cells), len(names))
    ]


def _value(matrix: memoryview) -> Value:
    parts = list(_elements(matrix))
    if len(parts) < 4:
        return None
    (_, flags), _, _, (kind, body) = parts[:4]
    if bytes(flags[:1]) == bytes([_TEXT]):
        return bytes(body).decode("utf-16-le" if kind in _UTF16 else "utf-8", "replace")
    code = _NUMBERS.get(kind)
    if code is None or len(body) != struct.calcsize(f"<{code}"):
        return None
    number: int | float = struct.unpack(f"<{code}", body)[0]
    return int(number) if number == number and abs(number) < 2**53 and number == int(number) else number
