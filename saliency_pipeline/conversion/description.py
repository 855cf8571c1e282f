"""`export.json`, which marks an export as finished and holds what its images have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saliency_pipeline.conversion.config import ConvertConfig
from saliency_pipeline.conversion.output import FileEntry
from saliency_pipeline.datasets.export_file import EXPORT, FORMAT, VERSION
from saliency_pipeline.files import write_atomically
from saliency_pipeline.shards.schema import ShardHeader

CLASSES = "classes.txt"
"""Class names in label order, one per line; absent where a name does not fit on a line."""


@dataclass(frozen=True)
class Description:
    """What all images of an export have in common.

    Attributes:
        header: that of the shards, with the exported methods.
        config: settings of the conversion.
        map_folders: folders of the maps by method (`png`): one, or one per explained class.
    """

    header: ShardHeader
    config: ConvertConfig
    map_folders: dict[str, list[str]]

    def as_dict(self) -> dict[str, Any]:
        """The description as JSON has it."""
        header = self.header
        return {
            "format": FORMAT,
            "format_version": VERSION,
            "kind": self.config.to,
            "plan": header.plan,
            "provenance": header.provenance,
            "classes": list(header.classes),
            "size": header.size,
            "encoding": header.encoding,
            "boxes": header.boxes,
            "groups": header.groups,
            "maps": {method: asdict(shape) for method, shape in header.maps.items()},
            "selection": {"splits": list(self.config.splits), "classes": list(self.config.classes)},
            **({"maps_as": self.config.maps_as, "map_folders": self.map_folders} if self.map_folders else {}),
        }

    def write(self, folder: Path, images: int, files: Sequence[FileEntry]) -> None:
        """Write `classes.txt` and, last of all, `export.json`, each atomically.

        Args:
            folder: the folder of the export.
            images: number of images.
            files: files that are listed.
        """
        names = self.header.classes
        if names and all(name.strip() == name and name.isprintable() and name for name in names):
            write_atomically(folder / CLASSES, "".join(f"{name}\n" for name in names))
        data = {**self.as_dict(), "images": images, "files": [asdict(entry) for entry in files]}
        text = json.dumps(data, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=1)
        write_atomically(folder / EXPORT, text + "\n")
