"""Tar archives read in place: names, offsets and sizes of their members.

`tarfile` takes 15 microseconds per header, twenty seconds for ImageNet's training images alone, reads headers of any
size into memory, and does not report what it skips.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader, RawIOBase
from typing import NamedTuple, TypedDict, cast

from saliency_pipeline.contents import ContentsStream, open_contents
from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import MAX_FILE_BYTES
from saliency_pipeline.text import shown

MAX_SMALL_BYTES = 2**24
"""Largest list or table that is read from an archive."""

_MAX_UNPACKED_BYTES = 2**26
_MAX_EXTENDED_BYTES = 2**20
_MAX_NAME_BYTES = 4096

_BLOCK = 512
_END = bytes(_BLOCK)
# name, size, checksum, kind, prefix of the name; what lies between concerns unpacking alone
_HEADER = struct.Struct("100s 24x 12s 12x 8s c 188x 155s 12x")

_FILE, _FOLDER, _SPARSE = (b"0", b"\0", b"7"), b"5", b"S"
_GLOBAL, _LONG_NAME, _LONG_LINK, _PAX = b"g", b"L", b"K", (b"x", b"X")
_EXTENDED = {_GLOBAL, _LONG_NAME, _LONG_LINK, *_PAX}
_WITHOUT_DATA = {b"1", b"2", b"3", b"4", _FOLDER, b"6"}
_A_LINK, _A_DEVICE, _A_SPARSE_FILE = "a link", "a device or pipe", "a sparse file"
_NO_FILE = {b"1": _A_LINK, b"2": _A_LINK, b"3": _A_DEVICE, b"4": _A_DEVICE, b"6": _A_DEVICE, _SPARSE: _A_SPARSE_FILE}

_CUT = "reaches beyond the end of the archive, which is not read any further; download it again"

_ODD_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")

_GZIP = b"\x1f\x8b"
_COMPRESSED = {
    _GZIP: "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"PK\x03\x04": "unzip",
    b"7z\xbc\xaf\x27\x1c": "7z x",
    b"Rar!\x1a\x07": "unrar x",
}

_Read = Callable[[int, int], bytes]
"""Read a number of bytes from an offset; fewer at the end of the archive."""


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
        name: its path in the archive, relative and '/' separated, valid as (part of) a key.
        offset: where in the archive's file its bytes begin.
        size: number of its bytes, all of them within the archive.
    """

    name: str
    offset: int
    size: int


def members(
    path: str, notes: Notes, *, start: int = 0, length: int | None = None, called: str | None = None
) -> Iterator[Member]:
    """The regular files of an uncompressed tar in their order; only headers are read.

    Folders are skipped. Skipped and noted are links, devices, pipes and sparse files; absolute, upward and invalid
    paths; the second and later file of a name; files above `MAX_FILE_BYTES` that are no tars. If the archive is
    truncated or damaged, the members before are returned and that is noted. Bytes of names that are not valid UTF-8
    are escaped as in `key_part`.

    The format is ustar with the extended headers of pax (POSIX.1-2001) and GNU's long names and large numbers.

    Args:
        path: the file.
        notes: receives what is skipped.
        start: where in the file the archive begins: `offset` of an archive within an archive.
        length: its number of bytes, `size` of the member; None for the whole file.
        called: name of the archive in notes; the file's name by default.

    Raises:
        SalpipeError: the file cannot be read, is compressed or is no tar. With `length` the latter two are noted
            instead, since archives beside it may be intact.
    """
    called = called or os.path.basename(path)
    with file_errors_explained(path), open_contents(path) as file:
        end, read = file.size, file.read
        if length is not None:
            end = min(end, start + length)
        fault = _fault(read(min(_BLOCK, end - start), start))
        if fault is None:
            yield from _members(read, start, end, called, notes)
        elif length is None:
            raise SalpipeError(f"{shown(path)}: {fault}")
        else:
            notes.add(called, fault)


def is_archive(path: str) -> bool:
    """True if a file has the suffix .tar, or begins like a tar or a compressed file."""
    try:
        with open_contents(path) as file:
            block = file.read(_BLOCK, 0)
    except OSError:
        return False
    return path.lower().endswith(".tar") or block.startswith(tuple(_COMPRESSED)) or _header(block) is not None


def read_small(path: str, name: str, limit: int = MAX_SMALL_BYTES) -> bytes:
    """The bytes of one small file in a .tar or .tar.gz, such as ILSVRC2012_devkit_t12.tar.gz.

    Args:
        path: the archive.
        name: the last parts of the member's path, such as "data/meta.mat"; the first match is read.
        limit: largest size of the file. Only the first 64 MiB of a compressed archive are unpacked.

    Raises:
        SalpipeError: there is no such file, it is too large, or the archive cannot be read.
    """
    for member, data in small_files(path, Notes(), limit, _MAX_UNPACKED_BYTES):
        if f"/{member}".endswith(f"/{name}"):
            if data is None:
                raise SalpipeError(f"{shown(path)}: {name} is larger than {limit:,} bytes; download it again")
            return data
    raise SalpipeError(f"{shown(path)}: holds no {name}; download it again")


def small_files(path: str, notes: Notes, limit: int, unpacked: int) -> Iterator[tuple[str, bytes | None]]:
    """The files in a .tar or .tar.gz, read once from front to back.

    Args:
        path: the archive.
        notes: receives what is skipped, as for `members`.
        limit: largest size of a file.
        unpacked: number of bytes of a compressed archive that are unpacked.

    Yields:
        The path of `Member`, and the bytes, or None if there are more than `limit`.

    Raises:
        SalpipeError: the archive cannot be read or is damaged; members 64 KiB before the damage were yielded.
    """
    try:
        with open_contents(path) as file:
            packed = file.read(2, 0) == _GZIP
            end = unpacked if packed else file.size
            raw = ContentsStream(file)
            stream = BufferedReader(cast(RawIOBase, gzip.GzipFile(fileobj=raw)) if packed else raw, 2**16)
            if (fault := _fault(stream.peek(_BLOCK)[:_BLOCK])) is not None:
                raise SalpipeError(f"{shown(path)}: {fault}")
            read = _forwards(stream.read)
            for member in _members(read, 0, end, os.path.basename(path), notes):
                data = read(member.size, member.offset) if member.size <= limit else None
                if data is not None and len(data) < member.size:
                    raise EOFError
                yield member.name, data
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise SalpipeError(f"{shown(path)}: {reason}; download it again or move it") from None


def _forwards(take: Callable[[int], bytes]) -> _Read:
    """Read at increasing offsets, so that a compressed file is unpacked once."""
    here = 0

    def read(size: int, at: int) -> bytes:
        nonlocal here
        while here < at and (passed := len(take(min(at - here, 2**16)))):
            here += passed
        data = take(size)
        here += len(data)
        return data

    return read


def _fault(block: bytes) -> str | None:
    """Why a file that begins with these bytes is no archive that can be read in place; None if it is one."""
    for magic, command in _COMPRESSED.items():
        if block.startswith(magic):
            return f"compressed; unpack it with {command}, since images are read where they lie"
    if block == _END or _header(block) is not None:
        return None
    return "no tar archive, or a damaged one; download it again or move it"


class _Header(NamedTuple):
    """Header of a member."""

    name: bytes
    size: int
    kind: bytes
    fault: str | None = None


class _Change(TypedDict, total=False):
    """Changes of extended headers to the header that follows them."""

    name: bytes
    size: int
    fault: str | None


def _members(read: _Read, at: int, end: int, called: str, notes: Notes) -> Iterator[Member]:
    names: set[int] = set()  # hashes: a small file may unpack to any number of names of 4 KB
    extended: _Change = {}
    while (block := read(_BLOCK, at) if at + _BLOCK <= end else b"") != _END:
        if len(block) < _BLOCK:
            notes.remark(called, "has no end mark; where it was cut short, members are missing")
            return
        header = _header(block)
        if header is None:
            notes.add(f"{called} from byte {at} on", "damaged, and not read")
            return
        at += _BLOCK
        if header.kind not in _EXTENDED and extended:
            header = header._replace(**extended)
            extended = {}
        if header.kind == _SPARSE and block[482]:
            at = _after_sparse_map(read, at, end)
        name, fault = _name(header.name)
        offset = at
        if header.kind not in _WITHOUT_DATA:
            if not 0 <= header.size <= end - at:
                notes.add(f"{called}: {name}", _CUT)
                return
            at += -(-header.size // _BLOCK) * _BLOCK
        if header.kind in _EXTENDED:
            extended |= _extended(read, offset, header)
            continue
        if header.kind == _FOLDER:
            continue
        fault = header.fault or fault
        if header.kind not in _FILE:
            fault = _NO_FILE.get(header.kind, "neither file nor folder")
        elif header.size > MAX_FILE_BYTES and not name.lower().endswith(".tar"):
            fault = fault or "too large for an image"
        elif hash(name) in names:
            fault = fault or "a name met before in the archive"
        if fault is None:
            names.add(hash(name))
            yield Member(name, offset, header.size)
        else:
            notes.add(f"{called}: {name}", fault)


def _header(block: bytes) -> _Header | None:
    """Parse a header; None if it is none."""
    if len(block) < _BLOCK:
        return None
    name, size, check, kind, prefix = _HEADER.unpack(block)
    try:
        # the sum of all bytes, with blanks for itself; zlib has it in the lower half of this, 1 more and modulo 65521,
        # ten times sooner than sum()
        if (_number(check) + sum(check) - 8 * ord(" ") + 1) % 65521 != zlib.adler32(block) & 0xFFFF:
            return None
        name = name.partition(b"\0")[0]
        if kind == b"\0" and name.endswith(b"/"):  # as folders were before POSIX
            kind = _FOLDER
        if prefix[0] and kind not in {_LONG_NAME, _LONG_LINK, _SPARSE}:
            name = prefix.partition(b"\0")[0] + b"/" + name
        return _Header(name, _number(size), kind)
    except ValueError:
        return None


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's large numbers; negative ones, which are no sizes, begin with another byte
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _extended(read: _Read, at: int, header: _Header) -> _Change:
    """Changes of an extended header to the one after it."""
    if header.kind in (_GLOBAL, _LONG_LINK):  # a global one has owners and times
        return {}
    if header.size > _MAX_EXTENDED_BYTES:
        return {"fault": "an extended header too large to be read"}
    data = read(header.size, at)
    if header.kind == _LONG_NAME:
        return {"name": data.partition(b"\0")[0]}
    change: _Change = {}
    try:
        for keyword, value in _pax(data):
            if keyword == b"path":
                change["name"] = value
            elif keyword == b"size":
                change["size"] = int(value)
            elif keyword.startswith(b"GNU.sparse."):
                change["fault"] = _A_SPARSE_FILE
    except ValueError:
        change["fault"] = "an extended header without sense"
    return change


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keywords and values of records "length keyword=value" and a line feed. Raises ValueError if they are invalid."""
    at = 0
    while at < len(data) and data[at]:
        space = data.index(b" ", at, at + 12)
        end = at + int(data[at:space])
        if not space < end <= len(data):
            raise ValueError(at)
        keyword, _, value = data[space + 1 : end - 1].partition(b"=")
        yield keyword, value
        at = end


def _after_sparse_map(read: _Read, at: int, end: int) -> int:
    """Offset of the data of a sparse file whose map of holes is larger than its header."""
    more = True
    while more and at < end:
        more = read(1, at + 504) not in (b"", b"\0")
        at += _BLOCK
    return at


def _name(raw: bytes) -> tuple[str, str | None]:
    """A member's path as a key, and its fault, if any."""
    if b"\\" in raw or not raw.isascii():
        name = raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    else:
        name = raw.decode("ascii")
    if len(raw) > _MAX_NAME_BYTES:
        return name[:_MAX_NAME_BYTES], "a path too long"
    if "\0" in name:
        return name, "a path with a NUL"
    if not _ODD_PART.search(name):
        return name, None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        return name, "an absolute path"
    if ".." in parts:
        return name, "a path that leads upwards"
    return "/".join(parts), None if parts else "no path"
