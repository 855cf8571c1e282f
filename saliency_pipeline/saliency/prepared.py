"""Cached preparation of a network for explaining: the choice of layer and the split at that layer.

The source model's network is built only if an entry is missing, because building takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from saliency_pipeline.cache import cached, environment
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.layers import Layer, choose_layers
from saliency_pipeline.saliency.engine.split import SplitNetwork, WithActivations, cut, last_linear, split_network
from saliency_pipeline.saliency.engine.stored_graph import from_bytes, to_bytes


def prepared_layers(source: SourceModel, names: Sequence[str] = ()) -> tuple[Layer, ...]:
    """`choose_layers` for a source model, cached."""
    return cached(
        "layer",
        _key(source, "layers", json.dumps(list(names))),
        lambda: choose_layers(source.module, source.preprocessing.size, names),
        lambda layers: json.dumps([vars(layer) for layer in layers]).encode(),
        lambda data: tuple(map(layer_from_json, json.loads(data))),
    )


def layer_from_json(attributes: dict[str, Any]) -> Layer:
    """The layer stored in a JSON document."""
    return Layer(**{**attributes, "grid": tuple(attributes["grid"])})


def prepared_split(source: SourceModel, layers: Sequence[Layer], batch: int) -> SplitNetwork:
    """`split_network` for a source model, cached."""
    layers = tuple(layers)
    key = _key(source, json.dumps([vars(layer) for layer in layers]), f"batch {batch}")

    def deserialize(data: bytes) -> SplitNetwork:
        whole, description = from_bytes(data)
        if whole is None:
            return SplitNetwork(layers, batch, WithActivations(source.module, [layer.name for layer in layers]))
        if not description["cut"]:
            return SplitNetwork(layers, batch, whole)
        trunk, head = cut(whole)
        return SplitNetwork(layers, batch, whole, trunk, head, last_linear(head) if description["linear"] else None)

    split = cached(
        "network",
        key,
        lambda: split_network(source.module, layers, source.preprocessing.size, batch),
        _serialize,
        deserialize,
    )
    return replace(split, cache_key=key)


def _serialize(split: SplitNetwork) -> bytes:
    # a network that could not be exported is not stored itself, only that fact
    graph = split.whole if isinstance(split.whole, fx.GraphModule) else None
    return to_bytes(graph, {"cut": split.trunk is not None, "linear": split.linear is not None})


def _key(source: SourceModel, *parts: str) -> tuple[str, ...]:
    """The key of a source model's entry; empty, so that none is stored, if its identity is unknown."""
    return (*source.identity, *environment(), *parts) if source.identity else ()
