"""Usable cores and worker processes: how they end, signals that they ignore, systems that cannot start any."""

import ast
import errno
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from joblib.externals.loky.backend.queues import Queue

from saliency_pipeline import workers
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.workers import (
    INTERRUPTIONS,
    WorkerDiedError,
    ordered,
    possible_jobs,
    run_in_workers,
    usable_cores,
    workers_died,
)
from tests.arenas import arenas_of_threads
from tests.test_architecture import name, sources


def test_affinity_bounds_the_cores_of_a_larger_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_cores() <= 2


def test_a_limit_that_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "all")
    with pytest.raises(SalpipeError, match="LOKY_MAX_CPU_COUNT=all: not a number of cores"):
        usable_cores()


@pytest.mark.parametrize("path", sources(), ids=name)
def test_nothing_else_counts_cores(path: Path) -> None:
    """Other ways to count cores, or thread pools without a number, use the host's cores inside a container."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Attribute) and node.attr == "cpu_count"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert not (node.func.id == "ThreadPoolExecutor" and not node.args), f"line {node.lineno}"


def test_threads_return_results_in_order_and_after_an_error_start_nothing() -> None:
    def work(number: int) -> int:
        started.append(number)
        if number == 3:
            raise ValueError("three")
        if number > 3:
            gate.wait(60)
        return number

    started: list[int] = []
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        assert list(ordered(pool, work, range(3), 2)) == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            list(ordered(pool, work, range(10), 20))
        gate.set()
    assert set(started) <= {0, 1, 2, 3, 4}


def blocked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def test_workers_ignore_interruptions_and_end_when_results_are_not_wanted() -> None:
    with closing(run_in_workers(blocked, [()] * 20, 2, 1)) as results:
        assert set(INTERRUPTIONS) <= next(results)
    assert multiprocessing.active_children() == []
    assert not set(INTERRUPTIONS) & blocked()


def test_no_thread_outlives_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it releases a semaphore while the process exits, and the resource tracker reports a leak."""
    feed, threads = Queue._feed, threading.enumerate()

    def feed_slowly(*arguments: object) -> None:
        feed(*arguments)
        time.sleep(0.2)

    monkeypatch.setattr(Queue, "_feed", staticmethod(feed_slowly))
    assert list(run_in_workers(abs, [(-1,)], 1, 1)) == [1]
    with closing(run_in_workers(len, [(bytes(1 << 20),)] * 8, 1, 1)) as results:
        next(results)
    assert threading.enumerate() == threads


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_the_signal_that_ended_a_worker_is_named(number: signal.Signals) -> None:
    with pytest.raises(WorkerDiedError, match=f"^{number.name}$"):
        list(run_in_workers(end_by, [(number,)], 1, 1))


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        ("SIGKILL", "perhaps for want of memory; run the same command with fewer --jobs"),
        ("SIGBUS", "because a file they had mapped became shorter or a disk failed"),
        ("SIGILL", "because a library needs instructions that this processor lacks"),
        ("SIGSEGV", "which is a library's crash"),
        ("exit code 75", "because no further thread could be started"),
    ],
)
def test_memory_is_suspected_only_where_it_may_be_the_cause(ended: str, cause: str) -> None:
    message = str(workers_died(WorkerDiedError(ended)))
    assert message.startswith(f"worker processes died 3 times ({ended}), {cause}")
    assert ("memory" in message) == (ended == "SIGKILL")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_without_room_for_semaphores_work_is_done_one_by_one(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def Semaphore(self) -> None:  # noqa: N802 - as multiprocessing calls it
            raise OSError(number, os.strerror(number))

    notes: list[str] = []
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: Full())
    assert possible_jobs(2, notes.append) == 1
    assert len(notes) == 1
    assert notes[0].startswith(f"/dev/shm: semaphores of worker processes cannot be made there ({os.strerror(number)})")
    assert possible_jobs(1, notes.append) == 1
    assert len(notes) == 1


def test_threads_of_a_worker_share_one_arena() -> None:
    """Others hold no large block: torch's would be mapped, zeroed and unmapped again and again."""
    with closing(run_in_workers(arenas_of_threads, [()], 1, 1)) as results:
        assert list(results) == [1]
