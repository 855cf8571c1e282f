"""Options that several commands share, options derived from settings classes, and output of results."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, redirect_stdout
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from saliency_pipeline.cli import config
from saliency_pipeline.errors import OptionError
from saliency_pipeline.evaluation import BATCH
from saliency_pipeline.gallery import COUNT, MAX_COUNT
from saliency_pipeline.settings import SEEDS, option_name, settings_of, types_of
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

C = TypeVar("C")


class Number(click.FloatRange):
    """A number in a range; unlike click's type, it refuses "nan"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value; NaN is an error."""
        converted = super().convert(value, param, ctx)
        if math.isnan(converted):
            self.fail(f"{value!r} is not a number", param, ctx)
        return converted


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers divided by '/', such as 72/18/10: whole ones as int, others as float."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a text."""
        if not isinstance(value, str):
            return value
        parts = value.split("/")
        if not all(re.fullmatch(r"[0-9]{1,10}|[0-9]{0,3}\.[0-9]{1,9}", part) for part in parts):
            self.fail(f"{value!r} is not numbers divided by '/', such as 72/18/10", param, ctx)
        return tuple(float(part) if "." in part else int(part) for part in parts)


class Separated(click.ParamType[tuple[Any, ...]]):
    """Items with a separator between them, such as 5,10,all."""

    name = "items"

    def __init__(self, separator: str, item: type) -> None:
        self._separator, self._item = separator, item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a text."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(map(self._item, value.split(self._separator)))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class ShardsPath(click.Path):
    """An existing path, or the URL of a folder of shards on object storage, which becomes its folder in the cache."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value; the manifest of a URL is requested."""
        if not is_url(value):
            return super().convert(value, param, ctx)
        from saliency_pipeline.storage.mirror import local_folder

        return local_folder(value)


class ImagesPlace(click.Path):
    """An existing path, or the URL of a data set, which is delivered as a text."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value; nothing is requested."""
        if not is_url(value):
            return super().convert(value, param, ctx)
        from saliency_pipeline.remote.address import checked_url

        return checked_url(value)


class LocalPath(click.Path):
    """An existing path of this machine; a URL is refused by its name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exists=True, path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value."""
        if is_url(value):
            # all else in a URL may be a password
            protocol = value.partition("://")[0]
            self.fail(f"{protocol}:// is read by 'salpipe generate' alone; give a path", param, ctx)
        return super().convert(value, param, ctx)


class OutputPath(click.Path):
    """A path to write to; refuses the empty path, which is an unset shell variable rather than the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value; the empty path is an error."""
        if not os.fspath(value):
            self.fail("is empty; use . for the current folder", param, ctx)
        if is_url(value):
            self.fail(f"{value!r} is a URL; give a folder of this host", param, ctx)
        return super().convert(value, param, ctx)


class OutputPlace(OutputPath):
    """A path to write to, or the URL of a folder on object storage, which is delivered as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value."""
        return value if is_url(value) else super().convert(value, param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
"""`--json`, delivered as `as_json`."""

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Suppress the progress bar and notes; errors are still printed."
)
"""`--quiet`, delivered as `quiet`."""

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=config.apply,
    is_eager=True,
    expose_value=False,
    metavar="FILE.toml",
    help="Read defaults of these options from a TOML file; the command line takes precedence.",
)
"""`--config`, which is not delivered: it changes the defaults of the other options."""


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, `--json` and `--quiet`."""
    return config_option(json_option(quiet_option(command)))


batch_size_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=BATCH, show_default=True, metavar="N", help="Images per batch."
)
"""`--batch-size`, delivered as the int `batch_size`."""

count_option = click.option(
    "-n",
    "--count",
    type=click.IntRange(1, MAX_COUNT),
    default=COUNT,
    show_default=True,
    help="Maximum number of images in the gallery.",
)
"""`--count`, delivered as the int `count`."""

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Device to run on."
)
"""`--device`, delivered as `device`."""


def cache_options(command: Callable[..., Any], *, limited: bool = True) -> Callable[..., Any]:
    """`--cache` and `--cache-size`, which are not delivered: they are for all that opens shards in this process.

    Without `limited` only the former: what is being written needs its space anyway.
    """
    folder = click.option(
        "--cache",
        type=OutputPath(file_okay=False),
        callback=_set_cache,
        is_eager=True,
        expose_value=False,
        metavar="FOLDER",
        help="Where shards from object storage are kept on this host.  [default: shards in the user's cache folder]",
    )
    size = click.option(
        "--cache-size",
        callback=_set_cache,
        is_eager=True,
        expose_value=False,
        metavar="SIZE",
        help="Maximum size of that folder, such as 200G; the shards that were not used for longest are removed.  "
        "[default: half of what the disk has for it]",
    )
    return folder(size(command)) if limited else folder(command)


def _set_cache(_: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Set the environment variable of one of `cache_options`, which worker processes inherit."""
    if value is None:
        return
    from saliency_pipeline.storage import settings

    if parameter.opts[0] == "--cache":
        os.environ[settings.FOLDER] = os.path.abspath(value)
    else:
        settings.parse_size(value)
        os.environ[settings.SIZE] = value


def allow_private_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--allow-private`, which is not delivered: it is for all requests of this process and its workers."""
    return click.option(
        "--allow-private",
        is_flag=True,
        callback=_allow_private,
        expose_value=False,
        help="Also read images from web servers at private, loopback and other non-public addresses.",
    )(command)


def _allow_private(_: click.Context, __: click.Parameter, value: bool) -> None:
    """Set the environment variable of `--allow-private`, which worker processes inherit."""
    if value:
        from saliency_pipeline.remote import address

        os.environ[address.ALLOW_PRIVATE] = "1"


def output_option(help: str, *, required: bool = True, or_url: bool = False) -> Callable[[Any], Any]:
    """`-o/--output`, delivered as the Path `output`, or None if it is omitted and not required.

    With `or_url` the URL of a folder on object storage is delivered as a text.
    """
    path = (OutputPlace if or_url else OutputPath)(file_okay=False, path_type=Path)
    metavar = "FOLDER|URL" if or_url else "FOLDER"
    return click.option("-o", "--output", type=path, required=required, metavar=metavar, help=help)


def seed_option(help: str, *, default: int = 0) -> Callable[[Any], Any]:
    """`--seed`, delivered as the int `seed` in [0, 2**32)."""
    return click.option("--seed", type=click.IntRange(*SEEDS), default=default, show_default=True, help=help)


def setting_options(
    kind: type, *, without: Collection[str] = (), help: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that the fields of a settings class define, in their order; see `saliency_pipeline.settings`.

    They are delivered under the names of the fields. A list takes its option several times, `none` for no item.
    Fields in `without` are left out; texts of `help`, by field, replace those of the class.
    """
    names = [name for name in settings_of(kind) if name not in without]
    options = [_setting_option(kind, name, (help or {}).get(name)) for name in names]
    # a decorator that comes first is applied last
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


def _setting_option(kind: type, name: str, help: str | None) -> Callable[[Any], Any]:
    field, setting = settings_of(kind)[name]
    flag, type_, default = f"--{option_name(kind, name)}", types_of(field)[0], field.default
    text = help or setting.help
    if default in (None, ()) and setting.default_text:
        text += f"  [default: {setting.default_text}]"
    more: dict[str, Any] = {"default": default, "show_default": default not in (None, ()), "help": text}
    if type_ == "bool":
        if default is False:
            return click.option(flag, name, is_flag=True, help=text)
        return click.option(f"{flag}/--no-{flag[2:]}", name, **more)
    more["metavar"], choices = setting.metavar, setting.choices
    if setting.separator is not None:
        more["type"] = Separated(setting.separator, float if type_.startswith("tuple[float") else str)
        return click.option(flag, name, **more)
    if type_ == "tuple[str, ...]":
        more["multiple"] = True
        if choices:  # otherwise `none` may be an item
            more["callback"], choices = _items, (*choices, "none")
    types: dict[str, Any] = {
        "int": int,
        "float": float,
        "Path": click.Path(exists=True, dir_okay=False, path_type=Path),
        "tuple[float, ...]": Numbers(),
    }
    return click.option(flag, name, type=click.Choice(choices) if choices else types.get(type_), **more)


def _items(_: click.Context, parameter: click.Parameter, items: tuple[str, ...]) -> tuple[str, ...]:
    """The distinct items of an option that may be repeated; `none` is no item."""
    if "none" in items and len(items) > 1:
        raise click.UsageError(f"{parameter.opts[0]} none: leave out the others")
    return () if items == ("none",) else tuple(dict.fromkeys(items))


def take_settings(kind: type[C], options: dict[str, Any]) -> C:
    """The settings of a class from the options of a command, which they are removed from; others have their defaults.

    Raises:
        OptionError: a value is not permitted; the message names the file if it is from that of `--config`.
    """
    names = settings_of(kind)
    try:
        return kind(**{name: options.pop(name) for name in names if name in options})
    except OptionError as error:
        context, flag = click.get_current_context(), str(error).split(" ")[0]
        sources = {f"--{option_name(kind, name)}": context.get_parameter_source(name) for name in names}
        if sources.get(flag) is not ParameterSource.DEFAULT_MAP:
            raise
        raise OptionError(f"{context.meta[config.FILE]}: {error}") from error


def beside(path: Path, suffix: str) -> Path:
    """Default output folder, beside the input: `photos/cat-gallery` for `photos/cat.jpg` and `gallery`.

    That of shards on object storage is in the current folder.
    """
    from saliency_pipeline.storage.mirror import Mirror

    if Mirror.at(path):
        return Path(f"{path.name}-{suffix}")
    # "." and ".." do not contain the folder's name
    named = path if path.name not in ("", "..") else path.resolve()
    return named.parent / f"{named.stem if path.is_file() else named.name}-{suffix}"


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text on standard output or standard error, with control characters in names escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def prints_on_stderr() -> AbstractContextManager[object]:
    """Within the block `print` writes on standard error, as users' networks and methods of packages may do it."""
    return redirect_stdout(sys.stderr)


def json_echo(value: object) -> None:
    """Print one JSON document, the result of a command, on standard output.

    Dictionaries, lists, tuples, strings, numbers, paths and NumPy's scalars and arrays may be nested. Numbers that are
    not finite become null.
    """
    # json escapes all but this one
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False).replace("\x7f", "\\u007f"))


def _plain(value: object) -> object:
    """The same value in JSON-serializable types."""
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
    raise TypeError(f"{type(value).__name__} is not JSON-serializable")


def progress_bar(total: int, unit: str, desc: str, *, quiet: bool = False) -> tqdm[Any]:
    """A progress bar on standard error, shown only if that is a terminal.

    Returns:
        A context manager with `update(steps)`. The bar is erased when it closes.

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
