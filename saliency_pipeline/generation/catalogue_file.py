"""A catalogue as a file that all workers of a cluster read: a summary, then one line per record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from saliency_pipeline.datasets.parquet_rows import ParquetRecord, RemoteParquetRecord
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.generation.summary import DataSummary
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.images.remote_record import RemoteRecord, is_remote
from saliency_pipeline.remote.address import shown_url
from saliency_pipeline.storage.store import is_url

FORMAT = "salpipe-catalogue"
PREFIX = "catalogue-"
_KINDS = (ImageRecord, ParquetRecord, RemoteRecord, RemoteParquetRecord)
# maps of an export are read by objects of its layout, which stay here
_FIELDS = {kind: tuple(field.name for field in fields(kind) if field.name != "maps") for kind in _KINDS}


@dataclass(frozen=True)
class Lines:
    """Where the records of one shard are: what a worker is sent instead of them.

    Attributes:
        start: position of the first byte in the file.
        length: number of bytes.
    """

    start: int
    length: int


def write_catalogue(
    folder: Path, catalogue: Catalogue, summary: DataSummary, shard_size: int
) -> tuple[Path, list[Lines]]:
    """Write a catalogue, with absolute paths, as `catalogue-<hash of the file>.jsonl`.

    Parts of one run, which write beside each other, share a file only if it has the same bytes in all.

    Returns:
        The file, and the lines of every shard of `shard_size` records.

    Raises:
        OptionError: maps of an export are to be stored, or a layout of a package reads its images itself.
    """
    if any(record.maps and record.map_path for record in catalogue.records):
        raise OptionError("--maps-from: maps of an export are stored without a cluster; use --engine loky")
    if any(type(record) not in _FIELDS for record in catalogue.records):
        raise OptionError(f"--engine: layout {catalogue.layout} reads its images itself; use --engine loky")
    if is_remote(catalogue.records) and shown_url(url := catalogue.records[0].path) != url:
        # the catalogue's file would hold it
        raise OptionError("--engine: the URL has a query, which may be a signature; use --engine loky")
    head = json.dumps({"format": FORMAT, "summary": _to_json(summary)}).encode() + b"\n"
    blocks, lines, position = [head], [], len(head)
    for start in range(0, len(catalogue.records), shard_size):
        block = b"".join(_line(record) for record in catalogue.records[start : start + shard_size])
        lines.append(Lines(position, len(block)))
        blocks.append(block)
        position += len(block)
    data = b"".join(blocks)
    path = folder / f"{PREFIX}{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    write_atomically(path, data)
    return path, lines


def read_summary(path: Path) -> DataSummary:
    """The summary of a catalogue that `write_catalogue` wrote.

    Raises:
        SalpipeError: the file is missing, or something else.
    """
    try:
        with open(path, "rb") as file:
            head = json.loads(file.readline())
        if head["format"] != FORMAT:
            raise ValueError("another format")
        return _summary(head["summary"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SalpipeError(f"{path}: not readable here ({error!s:.80}); all workers must share the folder") from error


def read_records(path: Path, lines: Lines) -> tuple[ImageRecord, ...]:
    """The records of one shard."""
    with open(path, "rb") as file:
        file.seek(lines.start)
        return tuple(_record(json.loads(line)) for line in file.read(lines.length).splitlines())


def _line(record: ImageRecord) -> bytes:
    # escapes keep names that are not valid UTF-8
    return json.dumps(_values(record)).encode("ascii") + b"\n"


def _values(record: ImageRecord) -> list[Any]:
    values = {name: getattr(record, name) for name in _FIELDS[type(record)]}
    values["path"] = _place(record.path)
    values["map_path"] = record.map_path and os.path.abspath(record.map_path)
    return [_KINDS.index(type(record)), *values.values()]


def _record(values: Sequence[Any]) -> ImageRecord:
    kind = _KINDS[values[0]]
    record = dict(zip(_FIELDS[kind], values[1:], strict=True))
    for name in ("box", "boxes_size"):
        record[name] = record[name] and tuple(record[name])
    record["boxes"] = tuple(map(tuple, record["boxes"]))
    record["split"] = Split(record["split"])
    return kind(**record)


def _place(path: str) -> str:
    """A path that workers with other working folders can use, or a URL."""
    return path if is_url(path) else os.path.abspath(path)


def _to_json(summary: DataSummary) -> dict[str, Any]:
    samples = {"measured": summary.measured, "background": summary.background}
    described = {name: value for name, value in asdict(summary).items() if name not in samples}
    return {
        **described,
        "root": _place(summary.root),
        **{name: [_values(record) for record in records] for name, records in samples.items()},
    }


def _summary(stored: dict[str, Any]) -> DataSummary:
    samples = {name: tuple(map(_record, stored[name])) for name in ("measured", "background")}
    names = {name: tuple(stored[name]) for name in ("classes", "ids")}
    return DataSummary(**{**stored, **samples, **names})
