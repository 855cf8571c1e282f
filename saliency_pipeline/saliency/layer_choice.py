"""Which layers are explained, and by which methods: those requested, those that methods name, or the default one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.layers import Layer, NoGridError
from saliency_pipeline.saliency.methods.method import LayerMethod, Method
from saliency_pipeline.saliency.prepared import prepared_layers


def explained_layers(
    source: SourceModel, methods: Sequence[Method], requested: Sequence[str] = (), size: int | None = None
) -> tuple[tuple[Layer, ...], tuple[Method, ...]]:
    """The layers of a source model that some methods explain, and the methods, each with its layer if it needs a name.

    Args:
        source: the source model.
        methods: of `find_methods`; one that names no layer explains the requested one, or else the default one.
        requested: names of layers; of several, `find_methods` has made one method per layer.
        size: value of `--size`, for messages; None if it was left out.

    Returns:
        The layers in the order in which they run, none only if no method explains one and the network has none; and
        the methods. Only where there are several layers and a method names none does the method change.

    Raises:
        SalpipeError: a name is no layer on a grid, or the network has none; or it does not accept frames of that size.
    """
    unnamed = [method for method in methods if isinstance(method, LayerMethod) and method.layer is None]
    names = list(dict.fromkeys([*(name for method in methods for name in method.explained()), *requested]))
    try:
        if not names and not unnamed:
            return _any_layer(source), tuple(methods)
        if not names or not unnamed:
            return prepared_layers(source, names), tuple(methods)
        default = requested[0] if requested else prepared_layers(source)[0].name
        layers = prepared_layers(source, list(dict.fromkeys([*names, default])))
    except (NoGridError, RuntimeError, AssertionError, ValueError) as error:
        if size is None:
            raise
        problem = f"does not accept such frames ({str(error).splitlines()[0]:.80})"
        if isinstance(error, NoGridError):
            problem = "has no layer on a grid for such frames; use a larger size"
        raise SalpipeError(f"--size {size}: {source.name} {problem}") from error
    if len(layers) == 1:
        return layers, tuple(methods)
    pinned = [dataclasses.replace(method, layer=default) if method in unnamed else method for method in methods]
    return layers, tuple({method.canonical: method for method in pinned}.values())


def _any_layer(source: SourceModel) -> tuple[Layer, ...]:
    """The default layer, where the network has one: nothing explains it, but the network is cut there."""
    try:
        return prepared_layers(source)
    except NoGridError:
        return ()
