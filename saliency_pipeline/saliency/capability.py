"""What a network must be for a method: checked before any image is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.attention import NoAttentionError, attention_graph
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import ATTENDED
from saliency_pipeline.saliency.engine.pull_back import operator_without_rule
from saliency_pipeline.saliency.engine.split import SplitNetwork
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.attention import AttentionMethod
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target

# what some networks cannot answer; everything else works on all that have a layer on a grid
LIMITED = Need.HEAD | Need.BIASES | Need.MODULE | Need.BACKWARD | ATTENDED


def check_capable(source: SourceModel, methods: Sequence[Method], layers: Sequence[Layer], batch: int) -> None:
    """Refuse methods that cannot explain a network.

    Args:
        source: the source model.
        methods: what is to be computed.
        layers: all explained layers, in the order in which they run.
        batch: frames per batch.

    Raises:
        SalpipeError: a method that needs the head alone, where the network cannot be cut at its layer; one that needs
            the exported network, where it cannot be exported or has an operator without a rule; one of attention, where
            the network has none among all tokens of the frame; or one that fails on a gray frame.
    """
    limited = [method for method in methods if method.needs & LIMITED]
    if not limited:
        return
    split = prepared_split(source, layers, batch)
    for method in limited:
        label = f"--method {method.canonical}"
        own = [layer for layer in layers if layer.name in method.explained(tuple(each.name for each in layers[:1]))]
        exported = isinstance(split.whole, fx.GraphModule)
        if method.needs & (Need.HEAD | Need.BIASES | Need.BACKWARD | ATTENDED) and not exported:
            raise SalpipeError(f"{label}: {source.name} cannot be exported; use another method")
        uncut = [layer.name for layer in own if not layer.clean]
        if method.needs & Need.HEAD and uncut:
            raise SalpipeError(
                f"{label}: {source.name} cannot be cut at {uncut[0]}; use a layer that the whole signal passes "
                "through, or another method"
            )
        if method.table and isinstance(split.whole, fx.GraphModule):
            missing = operator_without_rule(split.whole, method.table)
            if missing:
                raise SalpipeError(
                    f"{label}: {source.name} has {missing}, for which there is no rule; use gradient or another method"
                )
        if method.needs & Need.MODULE:
            gray = np.full((1, source.preprocessing.size, source.preprocessing.size, 3), 128, np.uint8)
            Explainer(source, layers, [method], Target("predicted"), batch, Placement(), split).explain(gray)
    if attending := [method for method in limited if method.needs & ATTENDED]:
        _check_attention(source, attending, split)


def _check_attention(source: SourceModel, methods: Sequence[Method], split: SplitNetwork) -> None:
    """Refuse methods of attention that cannot explain a network, which is exported."""
    label, remedy = f"--method {methods[0].name}", "use gradcam or another method of a layer"
    assert isinstance(split.whole, fx.GraphModule)
    if not split.layers:
        raise SalpipeError(f"{label}: {source.name} has no layer on a grid; use another method")
    try:
        graph = attention_graph(split.whole, split.layers[-1].grid, source.preprocessing.size, split.batch)
    except NoAttentionError as error:
        raise SalpipeError(f"{label}: {source.name} {error}; {remedy}") from error
    for method in methods:
        if method.needs & Need.BLOCKS and graph.classifier is None:
            raise SalpipeError(
                f"--method {method.name}: the blocks of {source.name} do not end with a residual sum; use chefer"
            )
        if isinstance(method, AttentionMethod) and method.least_depth > graph.depth:
            raise SalpipeError(
                f"--method {method.canonical}: {source.name} has {graph.depth} blocks; use a number up to that"
            )
