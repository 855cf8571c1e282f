"""The `salpipe` group: which commands there are, and what a failed one leaves on the terminal.

A command's file is imported when that command is called, so that `salpipe --help` imports none of them (and neither
torch nor NumPy).
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
    "fetch": ("saliency_pipeline.cli.fetch:command", "Download the images of a list of URLs: PubFig."),
    "audit": ("saliency_pipeline.cli.audit:command", "Find duplicates, and those with two labels or in two splits."),
    "generate": ("saliency_pipeline.cli.generate:command", "Explain a data set of images and store paired shards."),
    "inspect": ("saliency_pipeline.cli.inspect:command", "Say what a folder of shards, or one shard, holds."),
    "verify": ("saliency_pipeline.cli.verify:command", "Check shards and name every damaged one."),
    "show": ("saliency_pipeline.cli.show:command", "Draw a gallery and a contact sheet of overlays."),
    "train": ("saliency_pipeline.cli.train:command", "Train a network on pairs, modulated by the maps or not."),
    "compare": ("saliency_pipeline.cli.compare:command", "Train arms in pairs and say how they differ."),
    "evaluate": ("saliency_pipeline.cli.evaluate:command", "Measure a trained network on labeled images."),
    "predict": ("saliency_pipeline.cli.predict:command", "Classify plain images with a trained network."),
    "export": ("saliency_pipeline.cli.export:command", "Write a trained network as an ONNX model."),
    "models": ("saliency_pipeline.cli.models:command", "List the source models that can be used."),
}
"""Name of a command: where it is, as `module:attribute`, and its line in `salpipe --help`, in that order."""

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED, GO_ON = 130, "interrupted; run the same command again to go on"
PATIENCE = 5.0
"""Seconds that an interrupted command has to clean up before a second interruption ends it at once."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.interrupted = False
        """Whether an interruption was answered, after which there is nothing left to interrupt."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where the name is unknown."""
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
        """As click does it, but an unknown name is answered with the nearest one."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            import difflib  # slower to import than the rest of this file

            near = difflib.get_close_matches(args[0], self.lazy, n=1)
            ctx.fail(
                f"no such command '{args[0]}'; "
                + (f"did you mean '{near[0]}'?" if near else f"there are {', '.join(self.lazy)}")
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in self.lazy.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but that a wrong argument is repeated as what can be printed."""
        with usage_errors_escaped(), limits_named(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the user can put right, and an interruption, become one line and an exit code."""
        try:
            os.getcwd()
        except FileNotFoundError:
            # libraries end the process without a word of their own
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
            fail(ctx, GO_ON, INTERRUPTED)


def help_in_source(module: str, function: str) -> str:
    """The docstring of a function as its source has it: `python -OO` strips docstrings, which are the help."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(sys.modules[module]))
    named = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return next((ast.get_docstring(node) or "" for node in named), "")


def fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    """End the command: one line on standard error, in which names command no terminal, and the exit code."""
    click.echo("salpipe: " + printable(" ".join(message.splitlines())), err=True)
    ctx.exit(exit_code)


@contextmanager
def usage_errors_escaped() -> Iterator[None]:
    """Escape what a usage error repeats of the command line: a shell's '*' puts strangers' file names there."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise


@contextmanager
def limits_named(ctx: click.Context) -> Iterator[None]:
    """Answer a full disk, and a limit of the system that is reached, with one line."""
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
    """Whether an error says that the disk, or the user's share of it, is full.

    HDF5 reports some failed writes as a RuntimeError that carries the reason in its text alone.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def reached_limit(error: Exception) -> str:
    """Which limit of the system an error says is reached; empty where it says none."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return "limit on open files reached (ulimit -n)"
    # as the dynamic linker and Python say of memory, under ulimit -v
    if isinstance(error, MemoryError) or "failed to map segment" in str(error) or number == errno.ENOMEM:
        return "limit on memory reached (ulimit -v, or that of a container)"
    # as Python says of threads and fork(2) of processes
    if "can't start new thread" in str(error) or (number == errno.EAGAIN and not error.args[2:]):
        return "limit on processes and threads reached (ulimit -u, or the pids limit of a container)"
    return ""


def print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Answer `--version`; importlib.metadata is slow to import, so only then."""
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
    """Does knowing where to look help a network learn, on my data?

    salpipe explains labeled images with a source model and stores every image beside its saliency maps, and trains
    networks on the pairs, modulated by the maps or not.

    \b
    Examples:
      salpipe generate photos -o shards
      salpipe show shards -o gallery
      salpipe train shards -o run
      salpipe evaluate run shards

    Exit codes: 0 done, 1 an error that the message says how to put right, 2 wrong usage, 3 too many images rejected,
    4 a damaged shard, 130 interrupted; the same command then goes on where it stopped.
    """  # noqa: D301 - click reads \b


def main() -> None:
    """Run the command line: the entry point of the `salpipe` script. Never returns."""
    provide_streams()
    ended: int | str | None = 0

    def leave() -> None:
        if ended == INTERRUPTED:
            os._exit(INTERRUPTED)

    # registered first and called last: Python itself would report that a signal ended the process, though the command
    # did, wherever the interruption struck code that was compiled from text
    atexit.register(leave)
    provide_home()
    # figures look the same whatever a matplotlibrc, perhaps one among the data, or the environment asks for
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    collect_garbage_rarely()
    answer_interruptions()
    # where /dev/shm cannot be written; said again, and only where it matters, by whoever wants processes
    warnings.filterwarnings("ignore", ".*joblib will operate in serial mode", UserWarning)
    salpipe.help = salpipe.help or help_in_source(__name__, "salpipe")
    try:
        salpipe.main(prog_name="salpipe")
    except SystemExit as exit:
        ended = exit.code
        raise


def provide_streams() -> None:
    """Open the null device in place of standard streams that are closed, as under cron and some daemons.

    Otherwise the next file that is opened, perhaps a shard, would get the number of a stream that libraries write to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    # Python leaves those out that were closed when it started
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def collect_garbage_rarely() -> None:
    """Raise the thresholds of Python's garbage collector, and let it ignore all objects when the process exits.

    Importing PyTorch creates a million objects that are never released. With the default thresholds a quarter of the
    time until a network is ready, and most of the time to exit, is spent on looking at them again.
    """
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)


def answer_interruptions() -> None:
    """Have a job scheduler's TERM and a closed terminal's HUP end a command as Ctrl-C does, and let none get lost.

    Python raises KeyboardInterrupt wherever the main thread happens to be. That may be the callback of a weak reference
    or a `__del__`, which can pass no exception on (h5py closes its objects there), or an import that catches whatever
    goes wrong, so the command would go on. It is raised again a moment later, until it arrives; but not while it makes
    its way, because it would then hit the cleaning up. A signal that comes `PATIENCE` later ends the process at once.
    What the process was started to ignore, as nohup does, it ignores.
    """
    began: list[float] = []

    def interrupt(number: int, _: object) -> None:
        began.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        if not salpipe.interrupted and not is_interrupted():
            raise KeyboardInterrupt
        if number != signal.SIGALRM and began[-1] - began[0] > PATIENCE:
            os.write(2, f"salpipe: {GO_ON}\n".encode())
            os._exit(INTERRUPTED)

    for number in INTERRUPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    say = sys.unraisablehook

    def raised_again(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            say(lost)

    sys.unraisablehook = raised_again


def is_interrupted() -> bool:
    """Whether a KeyboardInterrupt is being handled where this is called."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
