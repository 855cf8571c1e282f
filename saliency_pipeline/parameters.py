"""Parameters of a named thing on the command line: `NAME:key=value,...` for a dataclass whose fields are settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import settings_of, types_of

X = TypeVar("X")


def with_parameters(kind: Callable[..., X], name: str, items: str | None, option: str) -> X:
    """Make a method or metric with the parameters that follow its name.

    Args:
        kind: dataclass whose fields are settings.
        name: its name on the command line.
        items: `key=value,...`, or None; of a parameter that is true or false the key alone means true.
        option: the option that names it, such as `--method`.

    Raises:
        OptionError: an unknown parameter, one without a value, one that is set twice, or a value that is not permitted.
    """
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for item in items.split(",") if items is not None else ():
        key, equals, value = item.partition("=")
        label = f"{option} {name}:{item}"
        if key not in settings_of(kind):
            raise OptionError(f"{label}: {_no_such_parameter(kind, name, key)}")
        if key in values:
            raise OptionError(f"{option} {name}:{items}: {key} is set twice; leave one out")
        type_ = types_of(settings_of(kind)[key][0])[0]
        if not value and (equals or type_ != "bool"):
            raise OptionError(f"{label}: has no value; use {key}=VALUE")
        values[key] = _value(value or "true", type_)
        labels[key] = label
    try:
        return kind(**values)
    except OptionError:
        # each by itself, for a message that names it
        for key, value in values.items():
            _make(kind, {key: value}, labels[key])
    return _make(kind, values, f"{option} {name}" + ("" if items is None else f":{items}"))


def _make(kind: Callable[..., X], values: dict[str, Any], label: str) -> X:
    try:
        return kind(**values)
    except OptionError as error:
        # it begins with the parameter as if that were an option, "--samples 0: "
        raise OptionError(f"{label}: {str(error).rpartition(': ')[2]}") from None


def _value(text: str, kind: str) -> Any:
    """A value in the type of its parameter, or as it is where it is none: the parameter's check then reports it."""
    types: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": {"true": True, "false": False}.get}
    try:
        value = types.get(kind, str)(text)
    except ValueError:
        return text
    return text if value is None else value


def _no_such_parameter(kind: Any, name: str, key: str) -> str:
    own = sorted(settings_of(kind))
    if not own:
        return f"{name} has no parameters"
    close = difflib.get_close_matches(key, own, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"choose from {', '.join(own)}"
    return f"no such parameter; {remedy}"
