"""Recognition of web pages, Git LFS pointers and archives that were saved in place of another file."""

from __future__ import annotations

_MISTAKEN = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file", "run 'git lfs pull' where it comes from"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def mistaken(head: bytes, wanted: str) -> str | None:
    r"""Return what a file is instead of the wanted kind, and the remedy; None if it is not recognized.

    Args:
        head: first bytes of the file, at least 24 if it has as many.
        wanted: expected kind, for the message.

    >>> mistaken(b"\n<!DOCTYPE html>", "an image"), mistaken(b"GIF89a", "an image")
    ('a web page or XML instead of an image; download the file itself', None)
    """
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"<"):
        return f"a web page or XML instead of {wanted}; download the file itself"
    return next((f"{kind}; {remedy}" for magic, kind, remedy in _MISTAKEN if head.startswith(magic)), None)
