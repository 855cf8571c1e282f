"""The `salpipe` command group: its commands, their errors and exit codes, and interruptions.

A command's module is imported when that command is called, so that `salpipe --help` imports none of them, nor torch
nor NumPy.
"""

import atexit
import errno
import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.home import provide_home
from saliency_pipeline.text import printable

COMMANDS = {
    "fetch": ("saliency_pipeline.cli.fetch:command", "Download the images of a list of URLs (PubFig)."),
    "audit": ("saliency_pipeline.cli.audit:command", "Find duplicates, also with different labels or across splits."),
    "explain": ("saliency_pipeline.cli.explain:command", "Explain single images, methods side by side."),
    "generate": ("saliency_pipeline.cli.generate:command", "Compute saliency maps of images and store both in shards."),
    "inspect": ("saliency_pipeline.cli.inspect:command", "Summarize a folder of shards or one shard."),
    "verify": ("saliency_pipeline.cli.verify:command", "Check shards and list the damaged ones."),
    "show": ("saliency_pipeline.cli.show:command", "Render a gallery and a contact sheet of overlays."),
    "assess": ("saliency_pipeline.cli.assess:command", "Measure the quality of maps and rank the methods."),
    "convert": ("saliency_pipeline.cli.convert:command", "Export shards as WebDataset, Parquet or folders of PNG."),
    "train": ("saliency_pipeline.cli.train:command", "Train a network on images with their saliency maps."),
    "compare": ("saliency_pipeline.cli.compare:command", "Compare networks trained with and without maps."),
    "evaluate": ("saliency_pipeline.cli.evaluate:command", "Evaluate a trained network on labeled images."),
    "predict": ("saliency_pipeline.cli.predict:command", "Classify images with a trained network."),
    "export": ("saliency_pipeline.cli.export:command", "Export a trained network to ONNX."),
    "push": ("saliency_pipeline.cli.push:command", "Upload a run or shards to the Hugging Face Hub."),
    "pull": ("saliency_pipeline.cli.pull:command", "Download a run or shards from the Hugging Face Hub."),
    "methods": ("saliency_pipeline.cli.methods:command", "List the available saliency methods."),
    "models": ("saliency_pipeline.cli.models:command", "List the available source models."),
}
"""Commands by name: location as `module:attribute`, and line in `salpipe --help`."""

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED, RESUME = 130, "interrupted; run the same command again to resume"
PATIENCE = 5.0
"""Seconds for cleanup after an interruption, before a second one ends the process at once."""


class LazyGroup(click.Group):
    """A group that imports the module of a command when it is called."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.interrupted = False
        """True once an interruption was handled."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in self.lazy:
            return None
        place, short_help = self.lazy[cmd_name]
        module, attribute = place.split(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is not a click command")
        command.short_help = short_help
        command.help = command.help or help_in_source(module, attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command as click does; the error of an unknown one suggests the nearest name."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            import difflib  # slower to import than the rest of this file

            near = difflib.get_close_matches(args[0], self.lazy, n=1)
            ctx.fail(
                f"no such command '{args[0]}'; "
                + (f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(self.lazy)}")
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without imports."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in self.lazy.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments as click does; control characters in errors are escaped."""
        with usage_errors_escaped(), limits_named(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a SalpipeError or an interruption becomes one line and an exit code."""
        try:
            os.getcwd()
        except FileNotFoundError:
            # libraries would end the process without a message
            fail(ctx, "error: the current folder no longer exists; change to one that does", 1)
        try:
            with usage_errors_escaped(), limits_named(ctx):
                return super().invoke(ctx)
        except SalpipeError as error:
            fail(ctx, f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            self.interrupted = True
            if sys.stderr.isatty():
                click.echo(err=True)  # off the line where the terminal wrote ^C
            fail(ctx, RESUME, INTERRUPTED)


def help_in_source(module: str, function: str) -> str:
    """The docstring of a function, read from its source: `python -OO` strips docstrings, which are the help."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(sys.modules[module]))
    named = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return next((ast.get_docstring(node) or "" for node in named), "")


def fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    """End the command with one line on standard error, control characters escaped, and an exit code."""
    click.echo("salpipe: " + printable(" ".join(message.splitlines())), err=True)
    ctx.exit(exit_code)


@contextmanager
def usage_errors_escaped() -> Iterator[None]:
    """Escape control characters in usage errors: a shell's '*' may expand to any file name."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise


@contextmanager
def limits_named(ctx: click.Context) -> Iterator[None]:
    """Report a full disk, or a system limit that is reached, in one line."""
    try:
        yield
    except (OSError, RuntimeError, ImportError, MemoryError) as error:
        if is_disk_full(error):
            where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
            fail(ctx, f"error: disk full{where}; free space and run the same command again", 1)
        if limit := reached_limit(error):
            fail(ctx, f"error: {limit}; raise it, or use fewer --jobs, and run the same command again", 1)
        raise


def is_disk_full(error: Exception) -> bool:
    """Return whether an error means that the disk is full or the user's quota is exhausted.

    HDF5 reports some failed writes as a RuntimeError with the reason in its text only.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def reached_limit(error: Exception) -> str:
    """Description of the system limit that caused an error; empty if none did."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return "limit on open files reached (ulimit -n)"
    # texts of the dynamic linker and Python for memory, under ulimit -v
    if isinstance(error, MemoryError) or "failed to map segment" in str(error) or number == errno.ENOMEM:
        return "limit on memory reached (ulimit -v, or that of a container)"
    # text of Python for threads, errno of fork(2) for processes
    if "can't start new thread" in str(error) or (number == errno.EAGAIN and not error.args[2:]):
        return "limit on processes and threads reached (ulimit -u, or the pids limit of a container)"
    return ""


def print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version; importlib.metadata is imported only here because it is slow to import."""
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"salpipe {version('saliency-pipeline')}")
    except PackageNotFoundError:
        click.echo("salpipe (a checkout that is not installed)")
    ctx.exit()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def salpipe() -> None:
    """Train image classifiers with saliency maps, and measure whether the maps help.

    salpipe computes saliency maps of labeled images with a source model, stores images and maps in shards, trains
    networks on them with and without the maps, and compares the results.

    \b
    Examples:
      salpipe generate photos -o shards
      salpipe show shards -o gallery
      salpipe train shards -o run
      salpipe evaluate run shards

    Exit codes: 0 success, 1 error, 2 wrong usage, 3 too many images rejected, 4 damaged shards or leaks, 130
    interrupted; the same command then resumes.
    """  # noqa: D301 - click reads \b


def main() -> None:
    """Run the command line: the entry point of the `salpipe` script. Never returns."""
    provide_streams()
    ended: int | str | None = 0

    def leave() -> None:
        if ended == INTERRUPTED:
            os._exit(INTERRUPTED)

    # registered first and called last: after an interruption in code compiled from text, Python itself would report
    # that the process was ended by a signal
    atexit.register(leave)
    provide_home()
    # figures do not depend on a matplotlibrc, which may be among the data, or on the environment
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    collect_garbage_rarely()
    handle_interruptions()
    # if /dev/shm cannot be written; where processes are used, they print a note
    warnings.filterwarnings("ignore", ".*joblib will operate in serial mode", UserWarning)
    salpipe.help = salpipe.help or help_in_source(__name__, "salpipe")
    try:
        salpipe.main(prog_name="salpipe")
    except SystemExit as exit:
        ended = exit.code
        raise


def provide_streams() -> None:
    """Open the null device in place of standard streams that are closed, as under cron and some daemons.

    Otherwise the next file that is opened, perhaps a shard, would get the file descriptor of a stream that libraries
    write to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    # None for those that were closed when Python started
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def collect_garbage_rarely() -> None:
    """Raise the thresholds of Python's garbage collector, and let it ignore all objects when the process exits.

    Importing PyTorch creates a million objects that are never released. With the default thresholds, traversing them
    takes a quarter of the time until a network is ready, and most of the time to exit.
    """
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)


def handle_interruptions() -> None:
    """Treat SIGTERM (of a scheduler) and SIGHUP (of a closed terminal) as Ctrl-C, and make sure that none is lost.

    Python raises KeyboardInterrupt wherever the main thread is. In a callback of a weak reference or a `__del__`
    (h5py closes its objects there), which cannot propagate exceptions, or in an import that catches all exceptions, it
    would be lost. It is therefore raised again after a moment until it is handled, but not while it propagates, which
    would interrupt the cleanup. A signal that comes `PATIENCE` later ends the process at once. Signals that were
    ignored when the process started, as under nohup, stay ignored.
    """
    began: list[float] = []

    def interrupt(number: int, _: object) -> None:
        began.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        if not salpipe.interrupted and not is_interrupted():
            raise KeyboardInterrupt
        if number != signal.SIGALRM and began[-1] - began[0] > PATIENCE:
            os.write(2, f"salpipe: {RESUME}\n".encode())
            os._exit(INTERRUPTED)

    for number in INTERRUPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    default_hook = sys.unraisablehook

    def raised_again(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            default_hook(lost)

    sys.unraisablehook = raised_again


def is_interrupted() -> bool:
    """Return whether a KeyboardInterrupt is being handled by the caller."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
