"""Small tar archives for tests: valid ones by tarfile, hostile ones byte by byte."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

END = bytes(1024)
"""What an archive ends with."""


def tar_bytes(files: Mapping[str, bytes], *, form: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive of regular files; one that holds another is made by giving this as the bytes of `n01440764.tar`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], *, form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files, form=form))
    return path


def entry(name: bytes, data: bytes = b"", *, kind: bytes = b"0", size: bytes | None = None, more: bytes = b"") -> bytes:
    """A member of any kind and name, with a valid checksum; `size` is the field as it stands in the header.

    `more` stands from byte 345 on: the prefix of the name, or what GNU puts in its place.
    """
    field = b"%011o" % len(data) if size is None else size
    block = bytearray(512)
    for at, value in ((0, name), (100, b"0000644"), (124, field), (156, kind), (257, b"ustar\x0000"), (345, more)):
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    """A pax header for the member that follows; keywords have `_` for `.`."""
    data = b""
    for keyword, value in records.items():
        record = b" %s=%s\n" % (keyword.replace("_", ".").encode(), value)
        length = len(record) + 1
        while len(b"%d" % length) + len(record) != length:
            length += 1
        data += b"%d" % length + record
    return entry(b"PaxHeaders/x", data, kind=b"x")


HOSTILE = {
    "an absolute path": entry(b"/etc/passwd.jpg", b"evil"),
    "a path that leads upwards": entry(b"../../evil.jpg", b"evil"),
    "a link": entry(b"link.jpg", kind=b"2") + entry(b"hard.jpg", kind=b"1"),
    "a device or pipe": entry(b"zero.jpg", kind=b"3") + entry(b"disk.jpg", kind=b"4") + entry(b"pipe.jpg", kind=b"6"),
    "a sparse file": entry(b"holes.jpg", b"evil", kind=b"S"),
    "neither file nor folder": entry(b"volume.jpg", kind=b"V"),
    "a path with a NUL": pax(path=b"evil\0.jpg") + entry(b"x.jpg", b"evil"),
    "a path too long": pax(path=b"a" * 5000) + entry(b"x.jpg", b"evil"),
    "no path": entry(b"./.", b"evil") + entry(b"", b"evil"),
    "an extended header without sense": entry(b"x", b"99 path=evil.jpg\n", kind=b"x") + entry(b"x.jpg", b"evil"),
}
"""Members no catalogue may hold, by the reason that is noted; a reader continues behind them."""
