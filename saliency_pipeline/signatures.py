"""What is in the place of another file by mistake, by its first bytes: web pages, Git LFS pointers, archives."""

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
    r"""What a file is that is none of the kind wanted, and the remedy; None where it is nothing that is known.

    Args:
        head: its first bytes, at least 24 where there are so many.
        wanted: what it should be, for the message.

    >>> mistaken(b"\n<!DOCTYPE html>", "an image"), mistaken(b"GIF89a", "an image")
    ('a web page or XML instead of an image; download the file itself', None)
    """
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"<"):
        return f"a web page or XML instead of {wanted}; download the file itself"
    return next((f"{kind}; {remedy}" for magic, kind, remedy in _MISTAKEN if head.startswith(magic)), None)
