"""Untrusted files: opening regular files only, reading JSON and TOML of bounded size and depth."""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20
"""Maximum size of a document. A manifest of 100,000 shards has 20 MiB."""

MAX_DEPTH = 64
"""Maximum nesting of a document. salpipe's own files have about ten levels at most."""


class DocumentError(ValueError):
    """A document cannot be read. The message is the reason only; callers add the file and the remedy."""


class NotRegularError(OSError):
    """The path leads to a pipe, socket or device."""


def remedy_for(error: OSError) -> str:
    """Return the remedy for a file that cannot be opened or read."""
    if isinstance(error, NotRegularError | IsADirectoryError):
        return "give a regular file"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "check the path"
    return "download it again" if error.errno == errno.EIO else "check its permissions"


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; an `opener` for `open`.

    Pipes, which would block, and devices, which may never end, are refused. Symbolic links to regular files are
    followed.

    Raises:
        IsADirectoryError: the path is a folder.
        NotRegularError: the path is neither a file nor a folder.
        OSError: the file cannot be opened.
    """
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotRegularError(errno.EINVAL, "Not a regular file", path)


def read_regular(path: Path | str, limit: int = MAX_BYTES) -> bytes:
    """Read a whole regular file (see `open_regular`) of at most `limit` bytes.

    Raises:
        DocumentError: it is not a regular file, or larger than the limit.
        OSError: it cannot be opened or read.
    """
    try:
        with open(path, "rb", opener=open_regular) as file:
            # files of /proc and /sys report a size of 0, and a file may grow meanwhile
            data = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else None
    except NotRegularError:
        raise DocumentError("not a regular file") from None
    if data is None or len(data) > limit:
        raise DocumentError(f"larger than {limit:,} bytes")
    return data


def parse_json(data: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        DocumentError: it is not valid, or nested more than `MAX_DEPTH` levels deep.

    >>> parse_json(b"[" * 100_000)
    Traceback (most recent call last):
    saliency_pipeline.documents.DocumentError: nested too deeply
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    except ValueError as error:
        raise DocumentError(f"not valid JSON: {error}") from None
    return _of_bounded_depth(value)


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML in UTF-8.

    Raises:
        DocumentError: it is not valid, or nested more than `MAX_DEPTH` levels deep.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    except ValueError as error:
        raise DocumentError(f"not valid TOML: {error}") from None
    _of_bounded_depth(table)
    return table


def read_json(path: Path | str, limit: int = MAX_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        DocumentError: it is no regular file, too large, not valid, or nested too deeply.
        OSError: it cannot be opened or read.
    """
    return parse_json(read_regular(path, limit))


def read_toml(path: Path | str, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DocumentError: it is no regular file, too large, not valid, or nested too deeply.
        OSError: it cannot be opened or read.
    """
    return parse_toml(read_regular(path, limit))


def _of_bounded_depth(value: Any) -> Any:
    """Return the value, unless it is nested so deeply that a later function might exceed Python's recursion limit."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise DocumentError("nested too deeply")
