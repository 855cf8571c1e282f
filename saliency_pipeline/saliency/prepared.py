"""Networks ready to explain, kept in the user's cache folder: the chosen layer and the cut graph.

The caller's source model is asked for its network only where an entry has to be made: that is what costs the seconds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from torch import fx

from saliency_pipeline.cache import environment, kept
from saliency_pipeline.models.source import SourceModel
from saliency_pipeline.saliency.layers import Layer, choose_layer
from saliency_pipeline.saliency.split import Observed, SplitNetwork, cut, last_linear, split_network
from saliency_pipeline.saliency.stored_graph import from_bytes, to_bytes


def prepared_layer(source: SourceModel, name: str | None = None) -> Layer:
    """The layer of `choose_layer`, found once."""
    return kept(
        "layer",
        _made_of(source, f"layer {name}"),
        lambda: choose_layer(source.module, source.preprocessing.size, name),
        lambda layer: json.dumps(vars(layer)).encode(),
        lambda data: read_layer(json.loads(data)),
    )


def read_layer(data: dict[str, Any]) -> Layer:
    """A layer from its attributes as JSON has them."""
    return Layer(**{**data, "grid": tuple(data["grid"])})


def prepared_split(source: SourceModel, layer: Layer, batch: int) -> SplitNetwork:
    """The network of `split_network`, cut once."""
    made_of = _made_of(source, json.dumps(vars(layer)), f"batch {batch}")

    def unpack(data: bytes) -> SplitNetwork:
        whole, about = from_bytes(data)
        if whole is None:
            return SplitNetwork(layer, batch, Observed(source.module, layer.name))
        if not about["cut"]:
            return SplitNetwork(layer, batch, whole)
        trunk, head = cut(whole)
        return SplitNetwork(layer, batch, whole, trunk, head, last_linear(head) if about["linear"] else None)

    split = kept(
        "network",
        made_of,
        lambda: split_network(source.module, layer, source.preprocessing.size, batch),
        _packed,
        unpack,
    )
    return replace(split, key="\0".join(made_of))


def _packed(split: SplitNetwork) -> bytes:
    # what could not be exported stays the source's own network
    graph = split.whole if isinstance(split.whole, fx.GraphModule) else None
    return to_bytes(graph, {"cut": split.trunk is not None, "linear": split.linear is not None})


def _made_of(source: SourceModel, *more: str) -> tuple[str, ...]:
    return (source.name, source.weights_sha256, str(source.preprocessing), *environment(), *more)
