"""What a network must be for a method: checked before any image is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.pull_back import operator_without_rule
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target

# what some networks cannot answer; everything else works on all that have a layer on a grid
LIMITED = Need.HEAD | Need.BIASES | Need.MODULE | Need.BACKWARD


def check_capable(source: SourceModel, methods: Sequence[Method], layers: Sequence[Layer], batch: int) -> None:
    """Refuse methods that cannot explain a network.

    Args:
        source: the source model.
        methods: what is to be computed.
        layers: all explained layers, in the order in which they run.
        batch: frames per batch.

    Raises:
        SalpipeError: a method that needs the head alone, where the network cannot be cut at its layer; one that needs
            the exported network, where it cannot be exported or has an operator without a rule; or one that
            fails on a gray frame.
    """
    limited = [method for method in methods if method.needs & LIMITED]
    if not limited:
        return
    split = prepared_split(source, layers, batch)
    for method in limited:
        label = f"--method {method.canonical}"
        own = [layer for layer in layers if layer.name in method.explained(tuple(each.name for each in layers[:1]))]
        exported = isinstance(split.whole, fx.GraphModule)
        if method.needs & (Need.HEAD | Need.BIASES | Need.BACKWARD) and not exported:
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
