"""`Provenance`: how stored maps were made, as it is read from shards and from networks that were trained on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saliency_pipeline.errors import OptionError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.settings import from_table


@dataclass(frozen=True)
class Provenance:
    """The provenance of shards of any origin: a part that is missing or damaged is None or empty.

    Attributes:
        settings: the settings of `salpipe generate`, with the stored names of model, weights, methods and device.
        layers: names of the explained layers in the order in which they run.
        backend: the backend that was chosen.
        precision: the precision that was chosen.
        source: the source model: name, weights and their hash, preprocessing, class names.
        data: options of reading and selection other than the defaults.
        background: number and hash of the images that methods compared with.
        target: the explained class as it was requested, also where the other settings cannot be read, as in shards of
            another version: maps of labels must not go unnoticed.
    """

    settings: GenerateConfig | None = None
    layers: tuple[str, ...] = ()
    backend: str | None = None
    precision: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    background: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None

    @classmethod
    def from_json(cls, stored: object) -> Provenance:
        """Read the provenance of a shard.

        >>> Provenance.from_json({"settings": {"fit": "pad"}, "resolved": {"layers": [{"name": "bn2"}]}}).layers
        ('bn2',)
        """
        record = _table(stored)
        resolved = _table(record.get("resolved"))
        layers = resolved.get("layers")
        names = [_table(layer).get("name") for layer in layers] if isinstance(layers, list) else []
        return cls(
            _settings(record.get("settings")),
            tuple(name for name in names if isinstance(name, str)),
            _text(resolved.get("backend")),
            _text(resolved.get("precision")),
            _table(record.get("source")),
            _table(record.get("data")),
            _table(record.get("background")),
            _text(_table(record.get("settings")).get("target", record.get("target"))),
        )

    def layers_for(self, method: str) -> tuple[str, ...]:
        """The layers to request for the maps of one method; none if it names its own.

        >>> Provenance(layers=("blocks.2", "bn2")).layers_for("gradcam:layer=bn2")
        ()
        """
        return () if re.search("[:,]layer=", method) else self.layers


def _settings(stored: object) -> GenerateConfig | None:
    try:
        return from_table(GenerateConfig, stored) if isinstance(stored, dict) else None
    except (TypeError, OptionError):
        return None


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
