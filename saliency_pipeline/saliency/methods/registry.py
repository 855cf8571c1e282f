"""Saliency methods by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.methods.cam import GradCam
from saliency_pipeline.saliency.methods.gradient import Gradient, GradientSmilkov
from saliency_pipeline.saliency.methods.method import Method

METHODS: dict[str, type[Method]] = {method.name: method for method in (GradCam, Gradient, GradientSmilkov)}
ALIASES = {"gradient:simonyan": "gradient", "gradient-simonyan": "gradient", "gradient:smilkov": "gradient-smilkov"}


def find_methods(texts: Iterable[str], layers: Sequence[str] = ()) -> tuple[Method, ...]:
    """The methods of some names, each once, in order."""
    methods: dict[str, Method] = {}
    for text in texts:
        name = ALIASES.get(text, text)
        if name not in METHODS:
            raise SalpipeError(f"--method {text}: unknown; choose from {', '.join(METHODS)}")
        methods |= {method.canonical: method for method in METHODS[name]().for_layers(tuple(layers))}
    if not methods:
        raise SalpipeError(f"no saliency method given; choose from {', '.join(METHODS)}")
    return tuple(methods.values())
