"""Worker processes that read cases, with limits of time and memory; crashes are recorded."""

import ctypes
import faulthandler
import gc
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random
from typing import Any

from saliency_pipeline.errors import SalpipeError
from tests.fuzz.cases import Case, clear, prepare

ACCEPTED, REFUSED, FAILED = "accepted", "refused", "failed"
EXIT_CODES = (1, 2, 3, 4)
"""Exit codes of failed commands, as documented."""

_PREPARING_SECONDS = 120.0
_LOOK_SECONDS = 0.02
_IDLE, _PATIENCE = 0.05, 6
"""Share of a processor below which a process is waiting, and multiple of the limit that is too long in any case."""
_PAGE = resource.getpagesize()
_ONE_AT_A_TIME = threading.Lock()
"""An exit code can be read once, and `start` in another thread reads those of all processes that have ended."""


@dataclass(frozen=True)
class Limits:
    """Limits of reading one file: seconds, and bytes of memory in addition to those of the process before."""

    seconds: float = 10.0
    memory: int = 1_500_000_000


@dataclass
class Result:
    """Result of a case.

    Attributes:
        case: which one.
        verdict: `accepted`, `refused` or `failed`.
        reason: why it was refused or how it failed, a line.
        cause: for failures, what those of one root share: the error's type and the last line of salpipe that it passed.
        seconds: of reading.
        worked: seconds of a processor's time in that.
        memory: peak of the process above what it had before, in bytes.
        edits: names of the mutators.
        notes: warnings, a line each.
        trace: traceback, or what a crashed process left.
    """

    case: Case
    verdict: str
    reason: str = ""
    cause: str = ""
    seconds: float = 0.0
    worked: float = 0.0
    memory: int = 0
    edits: str = ""
    notes: list[str] = field(default_factory=list)
    trace: str = ""


class Worker:
    """A process that reads one case after the other; a new one takes its place where it has to be killed.

    Args:
        context: whose server has imported the kinds already, so that a new process is there at once.
        table: name of the module that has `KINDS`.
        corpus: the seeds, see `cases.build`.
        limits: what a file may take.
    """

    def __init__(self, context: ForkServerContext, table: str, corpus: Path, limits: Limits) -> None:
        self.context, self.table, self.corpus, self.limits = context, table, corpus, limits
        self.scratch = Path(tempfile.mkdtemp(prefix="salpipe-fuzz-"))
        self._process: Any = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        clear(self.scratch)

    def read(self, case: Case) -> Result:
        """Read a case, and end its process if it exceeds the limits."""
        if self._process is None:
            self._start()
        self._connection.send(case)
        begun = time.monotonic()
        if not self._connection.poll(_PREPARING_SECONDS):
            self._kill()
            return Result(case, FAILED, "the file was not made in time", "harness")
        try:
            edits, before = self._connection.recv()
        except EOFError:
            return self._crashed(case, "", begun)
        begun, spent, most = time.monotonic(), _processor_seconds(self._process.pid), 0
        while not self._connection.poll(_LOOK_SECONDS):
            seconds = time.monotonic() - begun
            worked = _processor_seconds(self._process.pid) - spent
            most = max(most, _resident(self._process.pid) - before)
            if self._too_long(seconds, worked) or most > 2 * self.limits.memory:
                result = Result(case, FAILED, "", "", seconds, worked, most, edits, trace=self._stack())
                self._kill()
                return self._within_limits(result)
        try:
            return self._within_limits(self._connection.recv())
        except EOFError:
            return self._crashed(case, edits, begun)

    def _too_long(self, seconds: float, worked: float) -> bool:
        """Return whether a file takes or waits for too long; other load on the machine makes no difference."""
        most = self.limits.seconds
        return seconds > most and (worked > most or worked < _IDLE * seconds or seconds > _PATIENCE * most)

    def _within_limits(self, result: Result) -> Result:
        if result.memory > self.limits.memory:
            cause, reason = "memory", f"{result.memory / 1e9:.1f} GB"
        elif self._too_long(result.seconds, result.worked):
            cause, reason = "time", f"{result.seconds:.0f} s"
        else:
            return result
        # where the process was when it was ended, the innermost first
        place = re.search(r'saliency_pipeline/(\S+)", line (\d+) in (\S+)', result.trace)
        cause += " at {}:{} {}".format(*place.groups()) if place else ""
        return replace(result, verdict=FAILED, reason=reason, cause=cause)

    def _crashed(self, case: Case, edits: str, begun: float) -> Result:
        with _ONE_AT_A_TIME:
            self._process.join()
        code, seconds, trace = self._process.exitcode, time.monotonic() - begun, self._log()
        self._kill()
        reason = f"the process ended with {code}"
        return Result(case, FAILED, reason, f"crash {code}", seconds, edits=edits, trace=trace)

    def _start(self) -> None:
        self._connection, other = self.context.Pipe()
        arguments = (other, self.table, self.corpus, self.scratch)
        self._process = self.context.Process(target=_work, args=arguments, daemon=True)
        with _ONE_AT_A_TIME:
            self._process.start()
        other.close()

    def _kill(self) -> None:
        if self._process is not None:
            with _ONE_AT_A_TIME:
                self._process.kill()
                self._process.join()
            self._connection.close()
            self._process = None

    def _stack(self) -> str:
        """Return the stack of the process; a long system call has to end first."""
        os.kill(self._process.pid, signal.SIGUSR1)
        for _ in range(20):
            time.sleep(0.1)
            if trace := self._log():
                return trace
        return ""

    def _log(self) -> str:
        """Return the end of the process's standard error."""
        try:
            return (self.scratch / "log").read_text(errors="replace")[-3000:]
        except OSError:
            return ""


def broken_promise(error: SalpipeError) -> str:
    """Return what is wrong with a message for users, or an empty string."""
    if not str(error) or not str(error).isprintable():
        return "no message of one printable line"
    return "" if error.exit_code in EXIT_CODES else f"exit code {error.exit_code}"


# in the worker


def _work(connection: Connection, table: str, corpus: Path, scratch: Path) -> None:
    kinds = {kind.name: kind for kind in importlib.import_module(table).KINDS}
    for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR"):
        os.environ[name] = str(scratch)
    log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0), os.dup2(log, 1), os.dup2(log, 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the watch, which ends this process
        signal.signal(number, signal.SIG_IGN)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    gc.freeze()
    with suppress(EOFError):
        while True:
            case = connection.recv()
            os.ftruncate(log, 0)
            os.lseek(log, 0, os.SEEK_SET)
            kind = kinds[case.kind]
            path, edits = prepare(case, kind, corpus, scratch / "work")
            os.chdir(scratch / "work")
            connection.send((edits, _trimmed()))
            connection.send(_judged(case, edits, lambda: kind.read(path, Random(str(case)))))  # noqa: B023


def _judged(case: Case, edits: str, read: Callable[[], None]) -> Result:
    verdict, reason, cause, trace = ACCEPTED, "", "", ""
    before, peak = _trimmed(), _reset_peak()
    begun, spent = time.monotonic(), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read()
        except SalpipeError as error:
            verdict, reason = REFUSED, str(error)
            if cause := broken_promise(error):
                verdict, trace = FAILED, traceback.format_exc()
        except BaseException as error:  # a panic of a library in Rust is no Exception
            verdict, reason, trace = FAILED, f"{type(error).__name__}: {error}", traceback.format_exc()
            cause = f"{type(error).__name__} at {_place(error)}"
    seconds, worked = time.monotonic() - begun, time.process_time() - spent
    reason = ascii(reason[:500])[1:-1] if not reason.isprintable() else reason[:500]
    notes = sorted({f"{w.category.__name__}: {' '.join(str(w.message).split())[:160]}" for w in caught})
    memory = max(0, _peak(peak) - before)
    return Result(case, verdict, reason, cause, seconds, worked, memory, edits, notes, trace[-6000:])


def _place(error: BaseException) -> str:
    """Return the last line of salpipe in the error's traceback, or else the beginning of the message."""
    place = " ".join(str(error).split()[:2])
    for frame in traceback.extract_tb((error.__cause__ or error).__traceback__):
        folder, mark, name = frame.filename.rpartition("saliency_pipeline/")
        if mark and "/tests/" not in name and not folder.endswith("/tests/"):
            place = f"{name}:{frame.lineno} {frame.name}"
    return place


# what a process takes


def _processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _trimmed() -> int:
    """Return the resident bytes after returning freed blocks, which would hide the memory of the next file."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return _resident(os.getpid())


def _reset_peak() -> int:
    """Reset the peak; if that is not allowed, return it: then only a higher one is noticed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 0


def _peak(before: int) -> int:
    if before:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak if peak > before else 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
