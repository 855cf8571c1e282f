"""`--config FILE.toml`: a file with defaults of the parameters of a command.

A value of the file is parsed as if it were given on the command line, which takes precedence.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.documents import DocumentError, read_toml
from saliency_pipeline.errors import SalpipeError

FILE = "salpipe.config"
"""Key of the file's path in the metadata of the context."""


def apply(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Use the values of a file as defaults of the command that is being parsed: the eager callback of `--config`.

    A key is an option's long name without its dashes (`max-rejects`, also spelled `max_rejects`) or an argument's name
    in lower case. Keys are at the top level, for any command, or in a table named after a command (`[generate]`), which
    takes precedence; the tables of other commands are ignored. An option that may be repeated takes a list.

    Raises:
        SalpipeError: the file is not TOML, a key is unknown, or a value is not of its parameter's kind.
    """
    if path is None or ctx.resilient_parsing:
        return
    try:
        document = read_toml(path)
    except (DocumentError, OSError) as error:
        raise SalpipeError(f"{path}: cannot be read as TOML: {error}") from error

    command = ctx.info_name or ""
    commands = _names_of_commands(ctx)
    settings = {key: value for key, value in document.items() if not (key in commands and isinstance(value, dict))}
    if isinstance(document.get(command), dict):
        settings |= document[command]

    parameters = {name: each for each in ctx.command.params if each is not parameter for name in _names(each)}
    defaults: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.replace("_", "-")
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(sorted(parameters))}"
            raise SalpipeError(f"{path}: unknown key '{key}' for 'salpipe {command}'; {remedy}")
        defaults[parameters[name].name or ""] = _typed(parameters[name], value, f"{path}: {key}", ctx)
    ctx.meta[FILE] = path
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _names_of_commands(ctx: click.Context) -> set[str]:
    """Names of the command being parsed and of the other commands of its group."""
    names = {ctx.info_name or ""}
    if ctx.parent is not None and isinstance(ctx.parent.command, click.Group):
        names |= set(ctx.parent.command.list_commands(ctx.parent))
    return names


def _names(parameter: click.Parameter) -> list[str]:
    """Keys of a parameter in a file: long names of an option, the name of an argument."""
    if isinstance(parameter, click.Argument):
        return [(parameter.name or "").replace("_", "-")]
    if not parameter.expose_value:  # --help, --version
        return []
    return [name[2:] for name in parameter.opts if name.startswith("--")]


def _typed(parameter: click.Parameter, value: object, where: str, ctx: click.Context) -> object:
    """A TOML value as the command line would deliver it, checked by the parameter's type."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise SalpipeError(f"{where}: expected true or false, got {value!r}")
        return value
    many = parameter.multiple if isinstance(parameter, click.Option) else parameter.nargs == -1
    items = value if many and isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool | dict | list):
            kind = "a list of strings or numbers" if many else "a string or a number"
            raise SalpipeError(f"{where}: expected {kind}, got {value!r}")
    typed: object = [str(item) for item in items] if many else str(items[0])
    try:
        parameter.type_cast_value(ctx, typed)
    except click.BadParameter as error:
        raise SalpipeError(f"{where}: {error.message}") from error
    return typed
