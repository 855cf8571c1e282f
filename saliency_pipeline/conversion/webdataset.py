"""Tar files of WebDataset: per image `.png` or `.jpg`, `.cls`, `.json`, and per method `.<method>.npy`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from saliency_pipeline.conversion.description import Description
from saliency_pipeline.conversion.names import sample_name
from saliency_pipeline.conversion.output import FileEntry, LargeFile, OutputFiles
from saliency_pipeline.conversion.samples import Sample, npy
from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.shards.schema import to_json


def write_tars(folder: Path, number: int, samples: Iterable[Sample], description: Description) -> tuple[FileEntry, ...]:
    """Write the images of one shard as tar files, one per split.

    A sample is named by its position in the data set, since keys have dots, at which names of samples end. Images
    without a label have the class -1, and those of a data set without classes no `.cls`. The bytes depend on the images
    alone, and where frames are raw on the version of Pillow, which encodes them.

    Raises:
        SalpipeError: the disk is full or cannot be written.
        IntegrityError: the shard is damaged.
    """
    tars: dict[str, tuple[LargeFile, tarfile.TarFile]] = {}
    with OutputFiles(folder) as output, ExitStack() as opened:
        for sample in samples:
            if sample.split not in tars:
                file = output.create(sample.split, number, "tar")
                tar = tarfile.TarFile(fileobj=file.stream, mode="w", format=tarfile.PAX_FORMAT)
                tars[sample.split] = file, opened.enter_context(tar)
            file, tar = tars[sample.split]
            files = {sample.suffix: sample.image, "json": to_json(sample.facts).encode()}
            if description.header.classes:
                files["cls"] = str(sample.label).encode()
            files |= {f"{method}.npy": npy(maps) for method, maps in sample.maps.items()}
            with disk_errors_explained(file.path):
                for suffix, data in files.items():
                    _add(tar, f"{sample_name(sample.position)}.{suffix}", data)
            file.images += 1
        for file, tar in tars.values():
            with disk_errors_explained(file.path):
                tar.close()
        return output.publish()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # time 0, owner 0 and mode 0644 by default: the same bytes on every machine
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
