"""Tar files of WebDataset: per image `.png` or `.jpg`, `.cls`, `.json`, and per method `.<method>.npy`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from saliency_pipeline.conversion.description import Description
from saliency_pipeline.conversion.names import sample_name
from saliency_pipeline.conversion.output import FileEntry, OutputFiles
from saliency_pipeline.conversion.samples import Sample, npy
from saliency_pipeline.shards.schema import to_json


def write_tars(folder: Path, number: int, samples: Iterable[Sample], description: Description) -> tuple[FileEntry, ...]:
    """Write the images of one shard as tar files, one per split; their bytes depend on the images alone.

    A sample is named by its position in the data set, since keys have dots, at which names of samples end. Images
    without a label have the class -1, and those of a data set without classes no `.cls`.

    Raises:
        SalpipeError: the disk is full or cannot be written.
        IntegrityError: the shard is damaged.
    """
    tars: dict[str, tarfile.TarFile] = {}
    counts: dict[str, tuple[int, str]] = {}
    with OutputFiles(folder) as output:
        for sample in samples:
            name = f"{sample.split or 'shard'}-{number:05d}.tar"
            if name not in tars:
                tars[name] = tarfile.TarFile(fileobj=output.create(name), mode="w", format=tarfile.PAX_FORMAT)
            counts[name] = counts.get(name, (0, ""))[0] + 1, sample.split
            files = {sample.suffix: sample.image, "json": to_json(sample.facts).encode()}
            if description.header.classes:
                files["cls"] = str(sample.label).encode()
            files |= {f"{method}.npy": npy(maps) for method, maps in sample.maps.items()}
            for suffix, data in files.items():
                _add(tars[name], f"{sample_name(sample.position)}.{suffix}", data)
        for tar in tars.values():
            tar.close()
        return output.publish(counts)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # time 0, owner 0 and mode 0644 by default: the same bytes on every machine
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
