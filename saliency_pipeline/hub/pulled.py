"""`hub.json`: origin of a pulled folder, so that an interrupted `salpipe pull` continues with the same commit."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from saliency_pipeline.documents import read_json
from saliency_pipeline.files import write_atomically
from saliency_pipeline.hub.address import KINDS
from saliency_pipeline.recognition import PULLED


@dataclass(frozen=True)
class Origin:
    """Origin of a pulled folder: repository, its kind, the revision that was requested, and its commit then."""

    name: str
    kind: str
    revision: str | None
    commit: str

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """The origin of a folder; None if it was not pulled."""
        try:
            stored = cls(**read_json(folder / PULLED))
        except (OSError, ValueError, TypeError):
            return None
        texts = isinstance(stored.name, str) and isinstance(stored.commit, str)
        valid = texts and stored.kind in KINDS and re.fullmatch("[0-9a-f]{7,64}", stored.commit)
        return stored if valid else None

    def write(self, folder: Path) -> None:
        """Store it."""
        write_atomically(folder / PULLED, json.dumps(asdict(self), indent=2) + "\n")
