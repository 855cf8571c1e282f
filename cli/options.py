"""Options that several commands share, each written once, and how a command prints its result."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saliency_pipeline.cli import config
from saliency_pipeline.settings import option_name, settings_of
from saliency_pipeline.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm


class Number(click.FloatRange):
    """A number in a range; "nan", which click lets through, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it."""
        converted = super().convert(value, param, ctx)
        if math.isnan(converted):
            self.fail(f"{value!r} is not a number", param, ctx)
        return converted


class OutputPath(click.Path):
    """A path to write to; an empty one, which would mean the current folder, is a variable that was not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it."""
        if not os.fspath(value):
            self.fail("is empty; use . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
"""`--json`, delivered as `as_json`."""

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="No progress bar and no notes; errors are still printed."
)
"""`--quiet`, delivered as `quiet`."""

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=config.apply,
    is_eager=True,
    expose_value=False,
    metavar="FILE.toml",
    help="Take defaults for these options from a TOML file; options given here win.",
)
"""`--config`, which delivers nothing: it changes the defaults of the other options."""

batch_size_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Images at a time."
)
"""`--batch-size`, delivered as the int `batch_size`."""

device_option = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]")
"""`--device`, delivered as `device`."""

shards_argument = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
"""A folder of shards that exists, delivered as `folder`."""


def output_option(help: str, *, required: bool = True) -> Callable[[Any], Any]:
    """`-o/--output`, delivered as the Path `output`, or None where it is neither given nor required.

    Args:
        help: what is written there.
        required: whether the command needs it.
    """
    path = OutputPath(file_okay=False, path_type=Path)
    return click.option("-o", "--output", type=path, required=required, metavar="FOLDER", help=help)


def seed_option(help: str, *, default: int = 0) -> Callable[[Any], Any]:
    """`--seed`, delivered as the int `seed` in [0, 2**32).

    Args:
        help: what is random.
        default: the seed where none is given.
    """
    kind = click.IntRange(0, 2**32 - 1)
    return click.option("--seed", type=kind, default=default, show_default=True, help=help)


def setting_options(
    kind: type, *, without: Collection[str] = (), help: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that the fields of a settings class define, in their order; see `saliency_pipeline.settings`.

    They are delivered under the names of the fields. A list takes its option several times, `none` for no item.

    Args:
        kind: the class.
        without: fields to leave out.
        help: texts by field that replace those of the class.
    """
    names = [name for name in settings_of(kind) if name not in without]
    options = [_setting_option(kind, name, (help or {}).get(name)) for name in names]
    # a decorator that comes first is applied last
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


def _setting_option(kind: type, name: str, help: str | None) -> Callable[[Any], Any]:
    field, setting = settings_of(kind)[name]
    flag, default = f"--{option_name(kind, name)}", field.default
    text = help or setting.help
    if default is None and setting.default_text:
        text += f"  [default: {setting.default_text}]"
    shown: dict[str, Any] = {"show_default": default is not None, "help": text}
    if field.type == "bool" and default is False:
        return click.option(flag, name, is_flag=True, help=text)
    if str(field.type).startswith("bool"):
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=default, **shown)
    many = str(field.type).startswith("tuple")
    types: dict[str, Any] = {"int": int, "float": float}
    choices = (*setting.choices, "none") if many else setting.choices
    type_ = click.Choice(choices) if setting.choices else types.get(str(field.type).split(" | ")[0])
    if many:
        return click.option(
            flag, name, type=type_, multiple=True, default=default, callback=_items, metavar=setting.metavar, **shown
        )
    return click.option(flag, name, type=type_, default=default, metavar=setting.metavar, **shown)


def _items(_: click.Context, parameter: click.Parameter, items: tuple[str, ...]) -> tuple[str, ...]:
    """The items of an option that may be repeated: `none` is no item, and twice is once."""
    if "none" in items and len(items) > 1:
        raise click.UsageError(f"{parameter.opts[0]} none: leave out the others")
    return () if items == ("none",) else tuple(dict.fromkeys(items))


def beside(path: Path, what: str) -> Path:
    """Where results go by default: beside `photos/cat.jpg` they go to `photos/cat-gallery`.

    Args:
        path: what a command is given; it exists.
        what: what it makes of it.
    """
    # "." and ".." name a folder without saying its name
    named = path if path.name not in ("", "..") else path.resolve()
    return named.parent / f"{named.stem if path.is_file() else named.name}-{what}"


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines of text on standard output, or on standard error; names within never command the terminal."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def json_echo(value: object) -> None:
    """Print one JSON document, the result of a command, on standard output.

    Dictionaries, lists, tuples, strings, numbers, paths and NumPy's scalars and arrays may be nested at will. JSON has
    no word for numbers that are not finite: they become null.
    """
    # json escapes all but this one
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False).replace("\x7f", "\\u007f"))


def _plain(value: object) -> object:
    """The same value in the types that json knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def progress_bar(total: int, unit: str, desc: str, *, quiet: bool = False) -> tqdm[Any]:
    """A progress bar on standard error, drawn only where that is a terminal.

    Args:
        total: how many steps there are.
        unit: what a step is, in the singular.
        desc: what is being done.
        quiet: draw nothing.

    Returns:
        A context manager with `update(steps)`. It is erased when it closes.

    Example:
        >>> with progress_bar(2, "shard", "writing", quiet=True) as bar:
        ...     for shard in range(2):
        ...         _ = bar.update(1)
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        unit=f" {unit}",
        desc=desc,
        disable=quiet or not sys.stderr.isatty(),
        leave=False,
        dynamic_ncols=True,
    )
