"""Kinds whose readers break on purpose, for the tests of the watch itself."""

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

from saliency_pipeline.errors import IntegrityError, SalpipeError


def seeds(root: Path) -> Iterator[Path]:
    for name in ("one", "two"):
        path = root / name / "file.txt"
        path.parent.mkdir()
        path.write_text(f"{name} and some more\n" * 9)
        yield path


def accept(path: Path, random: Random) -> None:
    warnings.warn("a planted warning", stacklevel=1)


def refuse(path: Path, random: Random) -> None:
    raise IntegrityError(f"{path.name}: planted; mend it")


def say_nothing(path: Path, random: Random) -> None:
    raise SalpipeError("")


def leave_a_traceback(path: Path, random: Random) -> None:
    raise KeyError("planted")


def panic(path: Path, random: Random) -> None:
    raise BaseException("planted")


def hang(path: Path, random: Random) -> None:
    time.sleep(60)


def work_long(path: Path, random: Random) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def take_memory(path: Path, random: Random) -> None:
    """Too much for the tests, but not so much that the process is ended at once; gone when the file is read."""
    assert len(b"x" * 60_000_000)


def take_ever_more(path: Path, random: Random) -> None:
    held = []
    while True:
        held.append(b"x" * 4_000_000)
        time.sleep(0.005)


def crash(path: Path, random: Random) -> None:
    os.abort()


READERS = (accept, refuse, say_nothing, leave_a_traceback, panic, hang, work_long, take_memory, take_ever_more, crash)
KINDS = tuple(
    SimpleNamespace(name=read.__name__, seeds=seeds, read=read, mutators=(), valid=read is not refuse)
    for read in READERS
)
