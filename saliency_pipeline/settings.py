"""Settings: options that are defined once, as fields of frozen dataclasses with type, default, range, choices and help.

The options of the command line, the keys of TOML files, validation and documentation are all derived from the fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

from saliency_pipeline.errors import OptionError

C = TypeVar("C")

SEEDS = (0, 2**32 - 1)
"""Range of random seeds."""

_SETTING = "setting"
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Path": (Path,),
}
_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Path": "a path",
    "tuple[str, ...]": "a list of names",
    "tuple[float, ...]": "numbers",
}


@dataclass(frozen=True)
class Setting:
    """Description of an option, besides the type and default of its field.

    Attributes:
        help: help text.
        range: minimum and maximum, inclusive, of a number or the items of a list; None for any.
        choices: permitted values, or items of a list; empty for any.
        option: name on the command line and in files, without dashes, if it is not the name of the field.
        metavar: placeholder of the value in `--help`; None for that of its type.
        default_text: description of a default of None in `--help`.
        separator: between the items of a list on the command line; without one the option may be repeated.
    """

    help: str
    range: tuple[float, float] | None = None
    choices: tuple[str | int, ...] = ()
    option: str | None = None
    metavar: str | None = None
    default_text: str | None = None
    separator: str | None = None


def setting(default: Any, help: str, **more: Any) -> Any:
    """A field of a frozen dataclass that is an option; `help` and `more` are the attributes of `Setting`.

    >>> @dataclass(frozen=True)
    ... class Config:
    ...     lr: float = setting(1e-4, "Peak learning rate.", range=(1e-12, 1e4))
    ...     def __post_init__(self) -> None:
    ...         check_settings(self)
    >>> Config(lr=float("nan"))
    Traceback (most recent call last):
    ...
    saliency_pipeline.errors.OptionError: --lr nan: use a number from 1e-12 to 10000
    """
    return dataclasses.field(default=default, metadata={_SETTING: Setting(help, **more)})


def settings_of(config: Any) -> dict[str, tuple[dataclasses.Field[Any], Setting]]:
    """Fields of a class or an instance that are options, by name."""
    fields = dataclasses.fields(config)
    return {field.name: (field, field.metadata[_SETTING]) for field in fields if _SETTING in field.metadata}


def documented(config: type[C]) -> type[C]:
    """Class decorator: list the options in the docstring, with their help texts, under `Attributes`."""
    lines = [f"    {name}: {own.help}" for name, (_, own) in settings_of(config).items()]
    config.__doc__ = "\n".join((inspect.cleandoc(config.__doc__ or ""), "", "Attributes:", *lines))
    return config


def types_of(field: dataclasses.Field[Any]) -> list[str]:
    """Names of the types of a field, such as `["int", "None"]`."""
    return (field.type.__name__ if isinstance(field.type, type) else str(field.type)).split(" | ")


def option_name(config: Any, name: str) -> str:
    """Name of a field on the command line and in files, without dashes.

    >>> @dataclass(frozen=True)
    ... class Config:
    ...     batch_size: int = setting(16, "Images per step.")
    >>> option_name(Config, "batch_size")
    'batch-size'
    """
    return (settings_of(config)[name][1].option or name).replace("_", "-")


def check_settings(config: Any) -> None:
    """Check type, range and choices of every option of a configuration.

    Lists become tuples, and paths, texts and NumPy's integers what the option takes.

    Raises:
        OptionError: with the option, its value and the permitted values.
    """
    for name, (field, own) in settings_of(config).items():
        value, flag = getattr(config, name), f"--{option_name(config, name)}"
        kinds = types_of(field)
        if value is None and "None" in kinds:
            continue
        if (plain := _plain(value, kinds[0])) is not value:
            value = plain
            # frozen, but still within its __post_init__
            object.__setattr__(config, name, value)
        if not _is_a(value, kinds[0]):
            raise OptionError(f"{flag} {value!r:.80}: use {_NAMES[kinds[0]]}")
        for item in value if isinstance(value, tuple) else (value,):
            # NaN fails as well
            if own.range is not None and not own.range[0] <= item <= own.range[1]:
                low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in own.range)
                raise OptionError(f"{flag} {item}: use a number from {low} to {high}")
            if own.choices and item not in own.choices:
                raise OptionError(f"{flag} {item}: choose from {', '.join(map(str, own.choices))}")


def to_table(config: Any) -> dict[str, Any]:
    """A configuration as a TOML table, without the options that are None."""
    values = {name: getattr(config, name) for name in settings_of(config)}
    return {
        option_name(config, name): list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def from_table(kind: type[C], table: Mapping[str, Any]) -> C:
    """A configuration from a table of a file, by option or field name; missing options have their defaults.

    Raises:
        TypeError: it has an unknown key.
        OptionError: a value is not permitted.
    """
    names = {option_name(kind, name): name for name in settings_of(kind)}
    return kind(**{names.get(key, key): value for key, value in table.items()})


def _plain(value: Any, kind: str) -> Any:
    """A value of a Python caller in the type of its option, where that is unambiguous."""
    if isinstance(value, list):
        return tuple(value)
    if kind == "str" and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind == "Path" and isinstance(value, str):
        return Path(value)
    if kind in ("int", "float") and isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return operator.index(value)
    return value


def _is_a(value: object, kind: str) -> bool:
    if kind.startswith("tuple"):
        return isinstance(value, tuple) and all(_is_a(item, kind[6:].partition(",")[0]) for item in value)
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _KINDS[kind])
