"""Worker processes that end with their run and ignore Ctrl-C; threads in order, usable cores and shared memory."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.memory import keep_large_blocks

ATTEMPTS = 3
"""Attempts of a run whose worker processes die, as the kernel may kill one for a short lack of memory."""

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that terminals and job schedulers send to all processes of a run."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_NO_THREAD = 75
_CAUSES = {
    "SIGKILL": "perhaps for want of memory; run the same command with fewer --jobs",
    "SIGBUS": "because a file they had mapped became shorter or a disk failed; check both and run the same command "
    "again",
    "SIGILL": "because a library needs instructions that this processor lacks; install a build for it",
    f"exit code {_NO_THREAD}": "because no further thread could be started; raise the limit (ulimit -u, or the "
    "pids limit of a container) or use fewer --jobs",
    "SIGXCPU": "because CPU time is limited; raise the limit (ulimit -t) and run the same command again",
}
_CRASHED = "which is a library's crash; run the same command with --jobs 1 to see where"


class WorkerDiedError(Exception):
    """A worker process died. The message is the name of the signal or the exit code."""


def usable_cores() -> int:
    """Return the number of cores that CPU affinity and the container's CPU quota allow, at least 1.

    Raises:
        SalpipeError: LOKY_MAX_CPU_COUNT, which may lower the number, is not a number.
    """
    # not joblib.cpu_count, which is 1 wherever semaphores cannot be created
    from joblib.externals.loky import cpu_count

    try:
        return int(cpu_count())
    except ValueError:
        limit = os.environ.get("LOKY_MAX_CPU_COUNT")
        raise SalpipeError(f"LOKY_MAX_CPU_COUNT={limit}: not a number of cores; correct or unset it") from None


def possible_jobs(jobs: int, note: Callable[[str], None]) -> int:
    """Return `jobs`, or 1 with a note if worker processes cannot be started for lack of shared memory."""
    if jobs == 1:
        return 1
    try:
        check_shared_memory(jobs)
    except SalpipeError as error:
        note(f"{error}; running one job at a time instead of --jobs {jobs}")
        return 1
    return jobs


def check_shared_memory(jobs: int) -> None:
    """Raise SalpipeError if /dev/shm cannot hold the semaphores of `jobs` worker processes."""
    try:
        # more than a pool needs; unnamed, so that none is left behind
        context = multiprocessing.get_context("fork")
        _ = [context.Semaphore() for _ in range(12 + 2 * jobs)]
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or "not supported"
        raise SalpipeError(
            f"/dev/shm: semaphores of worker processes cannot be made there ({reason}); mount it writable and with "
            "1 MB or more (docker run --shm-size)"
        ) from error


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """`map` over a pool of threads in order, with at most `ahead` results pending; after an error they are canceled."""
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def run_in_workers(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int, threads: int
) -> Generator[Any]:
    """Call a function in worker processes and yield the results as they become ready.

    The function must be importable by its name. The processes end after the last result, or when the iterator is
    closed. `threads` per process is for libraries that read the environment.

    Raises:
        WorkerDiedError: a worker process died; the others have been ended.
    """
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    left, executor = iter(calls), None
    try:
        with warnings.catch_warnings():
            # loky replaces a worker whose memory has grown between two calls, and warns as if that were a fault
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            # loky looks for tools that slim containers lack, to end processes that are ended below
            warnings.filterwarnings("ignore", "Failed to kill subprocesses", UserWarning)
            start_resource_tracker()
            with interruptions_deferred():
                executor = ProcessPoolExecutor(
                    jobs,
                    env=dict.fromkeys(_THREADS, str(threads)),
                    initializer=become_worker,
                    initargs=(os.getpid(),),
                )
                waiting = {executor.submit(function, *call) for call in islice(left, 2 * jobs)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    with interruptions_deferred():
                        waiting |= {executor.submit(function, *call) for call in islice(left, 1)}
                    yield future.result()
    except TerminatedWorkerError as error:
        raise WorkerDiedError(_how_it_ended(str(error))) from error
    finally:
        if executor is not None:
            # loky's own way to kill workers fails while calls are pending
            for process in list(executor._processes.values()):
                # it may have ended meanwhile
                with suppress(ProcessLookupError):
                    if process.exitcode is None:
                        os.kill(process.pid, signal.SIGKILL)
            queue = executor._call_queue
            executor.shutdown()
            # loky does not wait for the thread that feeds the queue, which releases a semaphore last: if the process
            # exits halfway, the tracker of resources reports a leak. Closing the pipe ends a write that nobody reads.
            queue._reader.close()
            if queue._thread is not None:
                queue._thread.join()


def workers_died(error: WorkerDiedError) -> SalpipeError:
    """Return the error for workers that died in every attempt, the last time with `error`."""
    ended = str(error)
    cause = _CAUSES.get(ended, _CRASHED if ended.startswith("SIG") else _CAUSES["SIGKILL"])
    return SalpipeError(f"worker processes died {ATTEMPTS} times ({ended}), {cause}")


def start_resource_tracker() -> None:
    """Start multiprocessing's tracker of resources before processes that are to ignore interruptions.

    The first such process starts it otherwise, which unblocks the signals.
    """
    with interruptions_deferred():
        resource_tracker.ensure_running()


@contextmanager
def interruptions_deferred() -> Iterator[None]:
    """Defer interruptions to the end of the block, and block them for good in processes that are started in it."""
    received: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    # inherited by processes, and by threads that start further processes later
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        if threading.current_thread() is threading.main_thread():
            # a signal may arrive in another thread; Python runs its handler in this one
            for number in INTERRUPTIONS:
                if signal.getsignal(number) is not None:
                    handlers[number] = signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if received:
            signal.raise_signal(received[0])


def become_worker(run: int) -> None:
    """Initialize a worker process, which then ends with the run of process id `run`."""
    from tqdm import tqdm

    # before the first thread, which would have an arena of its own
    keep_large_blocks()
    # tqdm's default lock is a system semaphore, whose tracker writes to the terminal when a worker is killed
    tqdm.set_lock(threading.RLock())
    try:
        threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    except RuntimeError:
        os._exit(_NO_THREAD)


def _end_with(run: int) -> None:
    """End this worker once its run has ended, even if the run was killed."""
    while os.getppid() == run:
        time.sleep(0.5)
    os._exit(1)


def _how_it_ended(message: str) -> str:
    """Return the signal or exit code in loky's message, which ends with, for instance, `{SIGKILL(-9)}`."""
    ended = re.search(r"\{(SIG[A-Z0-9]+|EXIT)\((-?[0-9]+)\)", message)
    if ended is None:
        return "cause unknown"
    return f"exit code {ended[2]}" if ended[1] == "EXIT" else ended[1]
