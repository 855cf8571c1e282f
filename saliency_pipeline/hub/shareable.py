"""What is recorded about a run or shards without paths of this machine, for publication."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saliency_pipeline.documents import parse_json
from saliency_pipeline.errors import SalpipeError

NAMES = ("classes",)
"""Keys of documents whose texts are names, however they look."""

_PLACES = ("run", "shards", "folder", "start", "from", "from_baseline", "from-baseline", "path", "origin")
"""Keys of documents whose texts are places, also relative ones."""

# relative, of a file of weights or a table, or of any file in a parent folder
_RELATIVE = re.compile(r"\.{1,2}/.*|[^:\s]*/[^/:\s]*\.(?:pth|pt|pt2|ckpt|bin|safetensors|toml|csv|json)", re.DOTALL)
# absolute, of a home folder, of Windows, or a URL that is not public
_WHOLE = re.compile(r"(?:/[^\s/]|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|(?!https?://|hf://)[a-z][a-z0-9+.-]*://).*", re.DOTALL)
_PART = re.compile(r"(?<![\w.:/~-])[~/](?:[^\s/'\",;:()\[\]]*/)+[^\s/'\",;:()\[\]]*")


# where a container of Azure is no secret
_USER = re.compile(r"\b(https?://)[^/\s]*@|\b([a-z][a-z0-9+.-]*://)[^/\s]*:[^/\s]*@")


def without_paths(document: Any) -> Any:
    """A JSON document in which every path of this machine is replaced by its last component.

    User names and passwords in URLs are left out.

    Texts that are paths as a whole are recognized whatever they contain; within other texts absolute ones with at least
    two components are. The names of classes stay.

    >>> without_paths({"path": "/home/me/my shards", "note": "from /home/me/my shards and /mnt/x/w.pth", "a": "b/c"})
    {'path': 'my shards', 'note': 'from my shards and w.pth', 'a': 'b/c'}
    """
    document = _without_users(document)
    # longest first: one may contain the other
    return _replaced(document, "", sorted(set(absolute_paths(document)), key=len, reverse=True))


def absolute_paths(document: Any) -> Iterator[str]:
    """Texts of a JSON document that are absolute paths of this machine, or URLs that are not public."""
    if isinstance(document, str):
        if len(document) > 1 and _WHOLE.fullmatch(document):
            yield document
    elif isinstance(document, dict):
        for key, item in document.items():
            if key not in NAMES:
                yield from absolute_paths(item)
    elif isinstance(document, list | tuple):
        for item in document:
            yield from absolute_paths(item)


def _without_users(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: item if key in NAMES else _without_users(item) for key, item in document.items()}
    if isinstance(document, list | tuple):
        return [_without_users(item) for item in document]
    return _USER.sub(lambda match: match[1] or match[2], document) if isinstance(document, str) else document


def _replaced(document: Any, name: str, paths: list[str]) -> Any:
    """The document, which has a name in the one that holds it, without some paths."""
    if isinstance(document, dict):
        return {key: item if key in NAMES else _replaced(item, key, paths) for key, item in document.items()}
    if isinstance(document, list | tuple):
        return [_replaced(item, name, paths) for item in document]
    if not isinstance(document, str):
        return document
    if _RELATIVE.fullmatch(document) or (name in _PLACES and "/" in document and ":" not in document):
        return _last(document)
    for path in paths:
        document = document.replace(path, _last(path))
    return _PART.sub(lambda match: _last(match[0]), document)


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1].lstrip("~") or "folder"


def network_without_paths(data: bytes, baseline: str | None = None) -> bytes:
    """The file of a trained network without paths in its record; its tensors are the same to the bit.

    Args:
        data: a file of `models.trained`, whose format has been checked.
        baseline: SHA-256 of the network that makes its maps, as that is uploaded; None if no network does.
    """
    (length,) = struct.unpack("<Q", data[:8])
    header = parse_json(data[8 : 8 + length])
    description = parse_json(header["__metadata__"]["salpipe"])
    description["about"] = with_baseline(without_paths(description["about"]), baseline)
    header["__metadata__"]["salpipe"] = json.dumps(description, sort_keys=True)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # the format aligns tensors to 8 bytes
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def with_baseline(record: dict[str, Any], baseline: str | None) -> dict[str, Any]:
    """The record of a run with another SHA-256 of the network that makes its maps; unchanged for None."""
    return record if baseline is None else record | {"maps": record["maps"] | {"sha256": baseline}}


def check_shareable(name: str, data: bytes, folder: Path) -> None:
    """Check that a file does not name a folder of this machine: the last line of defense before an upload.

    Raises:
        SalpipeError: it does.
    """
    if name.endswith(".safetensors"):
        data = data[: 8 + struct.unpack("<Q", data[:8])[0]]
    places = {os.path.expanduser("~"), os.path.abspath(folder), os.path.realpath(folder)}
    for place in sorted(place for place in places if len(place) > 1):
        if re.search(rb"(?<![\w.-])" + re.escape(place.encode()) + rb"(?![\w-])", data):
            raise SalpipeError(f"{folder / name}: holds the path {place} of this machine and is not uploaded")
