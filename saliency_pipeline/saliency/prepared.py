"""Cached preparation of a network for explaining: the choice of layer and the split at that layer.

The source model's network is built only if an entry is missing, because building takes seconds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from torch import fx

from saliency_pipeline.cache import cached, environment
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.layers import Layer, choose_layer
from saliency_pipeline.saliency.engine.split import SplitNetwork, WithActivations, cut, last_linear, split_network
from saliency_pipeline.saliency.engine.stored_graph import from_bytes, to_bytes


def prepared_layer(source: SourceModel, name: str | None = None) -> Layer:
    """`choose_layer` for a source model, cached."""
    return cached(
        "layer",
        _key(source, "layer", json.dumps(name)),
        lambda: choose_layer(source.module, source.preprocessing.size, name),
        lambda layer: json.dumps(vars(layer)).encode(),
        lambda data: layer_from_json(json.loads(data)),
    )


def layer_from_json(attributes: dict[str, Any]) -> Layer:
    """The layer stored in a JSON document."""
    return Layer(**{**attributes, "grid": tuple(attributes["grid"])})


def prepared_split(source: SourceModel, layer: Layer, batch: int) -> SplitNetwork:
    """`split_network` for a source model, cached."""
    key = _key(source, json.dumps(vars(layer)), f"batch {batch}")

    def deserialize(data: bytes) -> SplitNetwork:
        whole, description = from_bytes(data)
        if whole is None:
            return SplitNetwork(layer, batch, WithActivations(source.module, layer.name))
        if not description["cut"]:
            return SplitNetwork(layer, batch, whole)
        trunk, head = cut(whole)
        return SplitNetwork(layer, batch, whole, trunk, head, last_linear(head) if description["linear"] else None)

    split = cached(
        "network",
        key,
        lambda: split_network(source.module, layer, source.preprocessing.size, batch),
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
