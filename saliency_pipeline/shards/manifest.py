"""`manifest.json`, which marks a folder of shards as finished: contents, reading and writing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from saliency_pipeline.documents import DocumentError, open_regular, parse_json, read_regular
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.schema import MAX_ROWS, Encoding, MapShape, ShardHeader, is_shard_name

MANIFEST = "manifest.json"
REJECTS = "rejects.jsonl"
FORMAT = "salpipe-manifest"

_Kind = TypeVar("_Kind")
_LINE_BYTES = 2**20
_REMEDY = "remove it and run 'salpipe generate' again to write it anew"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a finished folder: file name, number of images, size in bytes, SHA-256 in hexadecimal."""

    name: str
    images: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not is_shard_name(self.name):
            raise ValueError(f"{self.name!r} is not the name of a shard")
        if not 0 <= self.images <= MAX_ROWS or self.bytes < 0 or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"the entry of {self.name} is impossible")


@dataclass(frozen=True)
class Manifest:
    """Contents of a finished folder.

    Attributes:
        header: header that every shard must have.
        rejects: number of images that could not be used, the lines of `rejects.jsonl`.
        shards: the shards in order.
    """

    header: ShardHeader
    rejects: int
    shards: tuple[ShardEntry, ...]

    def __post_init__(self) -> None:
        if len({entry.name for entry in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        if not 0 <= self.rejects < 2**31:
            raise ValueError(f"{self.rejects} rejected images")

    @property
    def images(self) -> int:
        """Number of images in all shards."""
        return sum(entry.images for entry in self.shards)

    @classmethod
    def read(cls, folder: Path | str) -> Manifest:
        """Read the manifest of a finished folder.

        Raises:
            SalpipeError: there is none, or a newer salpipe wrote it.
            IntegrityError: it is damaged.
        """
        path = Path(folder) / MANIFEST
        try:
            text = read_regular(path)
        except FileNotFoundError:
            raise SalpipeError(
                f"{folder}: not a finished salpipe folder; run 'salpipe generate' again to finish it"
            ) from None
        except DocumentError as error:
            raise IntegrityError(f"{path}: {error}; {_REMEDY}") from error
        except OSError as error:
            raise SalpipeError(f"cannot read {path}: {error.strerror}") from error
        try:
            data = parse_json(text)
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise ValueError("not a manifest of salpipe")
            version = _field(data, "format_version", str)
            if not re.fullmatch(r"[1-9][0-9]{0,5}\.[0-9]{1,6}", version):
                raise ValueError(f"format_version is {version!r}")
            if int(version.split(".")[0]) > 1:
                raise SalpipeError(f"{path}: format {version} is newer than this salpipe can read; upgrade salpipe")
            return cls._parse(data)
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{path}: damaged ({error}); {_REMEDY}") from error

    def unlisted(self, folder: Path) -> dict[str, bool]:
        """The shards in a folder that the manifest does not list: for each file name, whether it is of this plan.

        Files that are being written, and HDF5 files that are not shards, are ignored.
        """
        listed = {entry.name for entry in self.shards}
        unlisted = {}
        for name in sorted(set(os.listdir(folder)) - listed):
            if name.endswith(".h5") and not name.startswith("tmp."):
                layout, _ = read_layout(folder / name)
                if layout is not None or is_shard_name(name):
                    unlisted[name] = layout is None or layout.header.plan == self.header.plan
        return unlisted

    def write(self, folder: Path | str) -> None:
        """Write the manifest atomically; its bytes depend only on its contents.

        Raises:
            SalpipeError: the disk is full or cannot be written.
        """
        data = {
            "format": FORMAT,
            "format_version": self.header.version,
            "images": self.images,
            **{
                name: getattr(self.header, name)
                for name in ("plan", "provenance", "classes", "size", "encoding", "boxes", "groups")
            },
            "maps": {method: _without_false(asdict(shape)) for method, shape in self.header.maps.items()},
            "rejects": self.rejects,
            "shards": [asdict(entry) for entry in self.shards],
        }
        text = json.dumps(data, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=2)
        write_atomically(Path(folder) / MANIFEST, text + "\n")

    @classmethod
    def _parse(cls, data: dict[str, Any]) -> Manifest:
        header = ShardHeader(
            plan=_field(data, "plan", str),
            provenance=_field(data, "provenance", dict),
            classes=tuple(_each(_field(data, "classes", list), str)),
            size=_field(data, "size", int),
            encoding=cast(Encoding, _field(data, "encoding", str)),
            maps={method: _shape(_of(shape, dict)) for method, shape in _field(data, "maps", dict).items()},
            # 1.0 had none
            boxes=_of(data.get("boxes", False), bool),
            groups=_of(data.get("groups", False), bool),
        )
        manifest = cls(
            header,
            rejects=_field(data, "rejects", int),
            shards=tuple(
                ShardEntry(
                    _field(entry, "name", str),
                    _field(entry, "images", int),
                    _field(entry, "bytes", int),
                    _field(entry, "sha256", str),
                )
                for entry in _each(_field(data, "shards", list), dict)
            ),
        )
        if manifest.images != _field(data, "images", int):
            raise ValueError(f"{data['images']} images but {manifest.images} in its shards")
        return manifest


def reject_lines(folder: Path) -> Iterator[bytes]:
    """The lines of a folder's rejects, up to the first that is longer than a MiB.

    Raises:
        OSError: the file cannot be read; a missing one has no lines.
    """
    with suppress(FileNotFoundError), open(folder / REJECTS, "rb", opener=open_regular) as file:
        while line := file.readline(_LINE_BYTES):
            yield line
            if len(line) == _LINE_BYTES:
                return


def _without_false(shape: dict[str, Any]) -> dict[str, Any]:
    """A shape without what is false, as manifests of formats that lack it have it."""
    return {name: value for name, value in shape.items() if value is not False}


def _shape(data: dict[str, Any]) -> MapShape:
    residual, error = (_of(data.get(name, False), bool) for name in ("residual", "standard_error"))
    targets, height, width = (_field(data, name, int) for name in ("targets", "height", "width"))
    return MapShape(targets, height, width, residual, error)


def _of(value: object, kind: type[_Kind]) -> _Kind:
    # a bool is an int to Python, but not to the format
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ValueError(f"{value!r:.40} is not a {kind.__name__}")
    return value


def _each(values: list[Any], kind: type[_Kind]) -> list[_Kind]:
    return [_of(value, kind) for value in values]


def _field(data: dict[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    if name not in data:
        raise ValueError(f"'{name}' is missing")
    return _of(data[name], kind)
