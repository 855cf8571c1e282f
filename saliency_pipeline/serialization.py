"""Frozen dataclasses as JSON and back, by the types of their fields."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class MismatchError(ValueError):
    """A JSON value does not have the type that is read. The message names the place and the type."""


def to_json(value: Any) -> Any:
    """A dataclass, or tuples and mappings of them, as JSON values; keys are the fields in their order.

    A field whose name is a keyword has an underscore at its end, its key has none.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name.rstrip("_"): to_json(getattr(value, name)) for name in _types(type(value))}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], value: object) -> T:
    """The inverse of `to_json`. Only fields with a default may be missing; further keys are ignored.

    Args:
        kind: the dataclass.
        value: parsed JSON, of any origin. Numbers have to be finite.

    Raises:
        MismatchError: the value, or one within it, has another type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Interval:
    ...     low: float
    ...     high: float | None = None
    >>> from_json(Interval, {"low": 0.5}), to_json(Interval(0.5))
    (Interval(low=0.5, high=None), {'low': 0.5, 'high': None})
    >>> from_json(Interval, {"low": "0.5"})
    Traceback (most recent call last):
    saliency_pipeline.serialization.MismatchError: low: not a number
    """
    read: T = _read(kind, value, "")
    return read


@cache
def _types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@cache
def _required(kind: type) -> frozenset[str]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return frozenset(field.name for field in fields if field.default is missing and field.default_factory is missing)


def _read(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(parts, value, place)
    if origin in (tuple, list):
        return _read_items(origin, parts, value, place)
    if origin is not None:
        items = _expect(value, dict, "an object", place).items()
        return {key: _read(parts[1], item, f"{place}.{key}"[:200]) for key, item in items}
    if kind is float:
        number = _expect(value, (int, float), "a number", place)
        # a whole number may be larger than any float
        return number if abs(number) <= sys.float_info.max else _refuse("not finite", place)
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    return _expect(value, kind, names[kind], place)


def _read_dataclass(kind: Any, value: Any, place: str) -> Any:
    table, values = _expect(value, dict, "an object", place), {}
    for name, own in _types(kind).items():
        key = name.rstrip("_")
        if key in table:
            values[name] = _read(own, table[key], f"{place}.{key}")
        elif name in _required(kind):
            _refuse("missing", f"{place}.{key}")
    return kind(**values)


def _read_union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    *first, last = (kind for kind in kinds if kind is not NoneType)
    for kind in first:
        try:
            return _read(kind, value, place)
        except MismatchError:
            continue
    return _read(last, value, place)


def _read_items(origin: Any, kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    items = _expect(value, list, "a list", place)
    if origin is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(kinds) != len(items):
        _refuse(f"not {len(kinds)} items", place)
    return origin(_read(kind, item, f"{place}[{n}]") for n, (kind, item) in enumerate(zip(kinds, items, strict=True)))


def _expect(value: Any, kinds: Any, name: str, place: str) -> Any:
    # a bool is an int to Python
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        _refuse(f"not {name}", place)
    return value


def _refuse(reason: str, place: str) -> Any:
    raise MismatchError(f"{place.lstrip('.') or 'document'}: {reason}")
