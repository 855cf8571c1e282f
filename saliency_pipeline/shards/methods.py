"""Methods of stored maps: finding one by any spelling of its name, and what the shards record of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from saliency_pipeline.errors import SalpipeError

if TYPE_CHECKING:
    from saliency_pipeline.shards.reader import ShardFolder


def stored_method(folder: ShardFolder, text: str) -> str:
    """The stored name of a method that is named with all, some or none of its parameters.

    `smoothgrad` and `smoothgrad:samples=25` are the stored `smoothgrad:noise=0.15,samples=25,seed=0,stat=mean`, unless
    maps of several such methods are stored. A parameter without a value is true, and numbers are compared as numbers.

    Raises:
        SalpipeError: no maps of such a method are stored, or maps of several.
    """
    if text in folder.methods:
        return text
    name, wanted = parsed(text)
    variants = []
    for stored in folder.methods:
        own, parameters = parsed(stored)
        if own == name and all(_equal(value, parameters.get(key)) for key, value in wanted.items()):
            variants.append(stored)
    if not variants:
        listed = ", ".join(folder.methods) or "none at all"
        raise SalpipeError(f"{folder.path} holds no maps of '{text}'; it holds {listed}")
    if len(variants) > 1:
        raise SalpipeError(
            f"{folder.path} holds maps of several methods '{text}'; choose one of {' and '.join(variants)}"
        )
    return variants[0]


def parsed(text: str) -> tuple[str, dict[str, str]]:
    """Name and parameters of a method as it is named on the command line or in shards.

    >>> parsed("gradcampp:normalized,layer=blocks.3")
    ('gradcampp', {'normalized': 'true', 'layer': 'blocks.3'})
    """
    name, _, rest = text.partition(":")
    items = (item.partition("=") for item in rest.split(",") if item)
    return name, {key: value if sign else "true" for key, sign, value in items}


def description(provenance: Mapping[str, object], method: str) -> Mapping[str, object]:
    """What a provenance records of a method; empty if that is nothing, as in a file from outside."""
    methods = provenance.get("methods")
    entry = methods.get(method) if isinstance(methods, dict) else None
    return entry if isinstance(entry, dict) else {}


def is_signed(provenance: Mapping[str, object], method: str) -> bool:
    """Return whether values of a method's maps below 0 speak against the class."""
    return description(provenance, method).get("signed") is True


def is_class_agnostic(provenance: Mapping[str, object], method: str) -> bool:
    """Return whether a method's maps explain no class."""
    return description(provenance, method).get("class_agnostic") is True


def recorded_parameters(provenance: Mapping[str, object], method: str) -> dict[str, object]:
    """Parameters of a method by name, as far as they are recorded."""
    parameters = description(provenance, method).get("parameters")
    return dict(parameters) if isinstance(parameters, dict) else {}


def _equal(value: str, stored: str | None) -> bool:
    if stored is None or value == stored:
        return stored is not None
    try:
        return float(value) == float(stored)
    except ValueError:
        return False
