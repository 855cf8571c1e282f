"""`convert`: from shards to an export, shard by shard; an interrupted conversion resumes after the last shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.conversion.config import ConvertConfig
from saliency_pipeline.conversion.description import Description
from saliency_pipeline.conversion.export_folder import export_folder, hash_of
from saliency_pipeline.conversion.output import FileEntry, Receipt, valid_receipt
from saliency_pipeline.conversion.parquet import import_pyarrow, write_tables
from saliency_pipeline.conversion.png import Folders, map_folders, write_folders, write_manifest
from saliency_pipeline.conversion.remote import RemoteExport
from saliency_pipeline.conversion.samples import Sample, counted, read_samples
from saliency_pipeline.conversion.selection import chosen_methods, chosen_positions
from saliency_pipeline.conversion.webdataset import write_tars
from saliency_pipeline.documents import parse_json
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import Positions, ShardFolder

Write = Callable[[Path, int, Iterable[Sample], Description], tuple[FileEntry, ...]]


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        folder: the export, or its URL.
        to: its format.
        images: number of images.
        splits: number of images per split; those without one have an empty name.
        methods: names of the methods whose maps it holds.
        files: number of files that hold images and maps.
        bytes: their size.
        shards: number of shards that were read.
        written: number of these that this run exported; the others were exported before.
    """

    folder: str
    to: str
    images: int
    splits: dict[str, int]
    methods: tuple[str, ...]
    files: int
    bytes: int
    shards: int
    written: int


def convert(
    shards: Path | str,
    output: Path | str,
    config: ConvertConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Conversion:
    """Export shards for other tools; resumes an interrupted conversion.

    Args:
        shards: a folder that `salpipe generate` finished, or one shard.
        output: folder of the export, or its URL on object storage; created if missing, otherwise empty or of the same
            conversion.
        config: settings of the conversion.
        progress: receives progress.
        **options: fields of `ConvertConfig`, instead of `config`.

    Raises:
        SalpipeError: the output cannot be written or holds other files, or nothing is selected.
        PlanMismatchError: the output holds another export.
        IntegrityError: a shard is damaged.
    """
    if config is not None and options:
        raise TypeError("give a configuration or its fields, not both")
    config, progress = config or ConvertConfig(**options), progress or Progress()
    data = ShardFolder(shards)
    if config.to == "parquet":
        import_pyarrow()
    methods, positions = chosen_methods(data, config), chosen_positions(data, config)
    header = replace(data.header, maps={method: data.header.maps[method] for method in methods})
    folders = map_folders(header, config.maps_as) if config.to == "png" else {}
    description = Description(header, config, folders)
    identity = hash_of(data, {"config": asdict(config), **description.as_dict()})
    remote = RemoteExport.of(output, identity)
    folder = remote.scratch if remote else Path(output)
    with export_folder(folder, shards, identity, progress.note):
        if remote:
            remote.claim()
        return _write(folder, remote, data, positions, description, identity, progress)


def _write(
    folder: Path,
    remote: RemoteExport | None,
    data: ShardFolder,
    positions: Positions,
    description: Description,
    identity: str,
    progress: Progress,
) -> Conversion:
    write = _writer(description, data, positions)
    chosen, starts = np.unique(data.shard_numbers(positions), return_index=True)
    files: list[FileEntry] = []
    written = 0
    progress.start(len(positions), "image", "exporting")
    try:
        for number, own in zip(chosen.tolist(), np.split(positions, starts[1:]), strict=True):
            receipt = remote.receipt(number) if remote else valid_receipt(folder, number, identity)
            if receipt is None:
                samples = read_samples(data, own, tuple(description.header.maps))
                receipt = Receipt(identity, write(folder, number, counted(samples, progress), description))
                receipt.write(folder, number)
                if remote:
                    remote.send(number, receipt)
                written += 1
            else:
                progress.advance(len(own))
            files += receipt.files
    finally:
        progress.stop()
    stored = data.splits[positions]
    splits = {name: count for name, split in SPLITS.items() if (count := int((stored == split).sum()))}
    listed = [entry for entry in files if entry.images]
    if description.config.to == "png":
        if remote:
            remote.fetch_lists(listed)
        write_manifest(folder, _facts(folder, listed))
    description.write(folder, len(positions), listed)
    if remote:
        remote.finish()
    return Conversion(
        remote.url if remote else str(folder),
        description.config.to,
        len(positions),
        splits,
        tuple(description.header.maps),
        len(files),
        sum(entry.bytes for entry in files),
        len(chosen),
        written,
    )


def _writer(description: Description, data: ShardFolder, positions: Positions) -> Write:
    if description.config.to == "png":
        folders = Folders(description.header.classes, bool((data.splits[positions] >= 0).any()))
        return partial(write_folders, folders=folders)
    return write_tars if description.config.to == "webdataset" else write_tables


def _facts(folder: Path, lists: Iterable[FileEntry]) -> Iterator[dict[str, object]]:
    """The lines of the lists of samples."""
    for entry in lists:
        with open(folder / entry.name, "rb") as file:
            for line in file:
                facts = parse_json(line)
                assert isinstance(facts, dict)
                yield facts
