"""Worker processes, which end with their run and never hear Ctrl-C, and the cores and memory that they may use."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any

from saliency_pipeline.errors import SalpipeError

ATTEMPTS = 3
"""How often a run goes on after a worker process died: the memory killer may strike once without meaning it."""

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What terminals and job schedulers send to all processes of a run."""

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
    """A worker process ended while it worked. The message is the name of the signal or the exit code."""


def usable_cores() -> int:
    """How many cores this process may use, at least 1: its CPU affinity and its container's CPU quota count.

    Raises:
        SalpipeError: LOKY_MAX_CPU_COUNT, which may lower the number, is no number.
    """
    # not joblib.cpu_count, which is 1 wherever semaphores cannot be made
    from joblib.externals.loky import cpu_count

    try:
        return int(cpu_count())
    except ValueError:
        limit = os.environ.get("LOKY_MAX_CPU_COUNT")
        raise SalpipeError(f"LOKY_MAX_CPU_COUNT={limit}: not a number of cores; correct or unset it") from None


def possible_jobs(jobs: int, note: Callable[[str], None]) -> int:
    """`jobs`, or 1 and a note where worker processes cannot be started for want of shared memory."""
    if jobs == 1:
        return 1
    try:
        check_shared_memory(jobs)
    except SalpipeError as error:
        note(f"{error}; --jobs {jobs} is done one by one")
        return 1
    return jobs


def check_shared_memory(jobs: int) -> None:
    """Raises SalpipeError where /dev/shm cannot hold the semaphores of so many worker processes."""
    try:
        # more than a pool makes; these have no names, so that they are gone whatever happens
        context = multiprocessing.get_context("fork")
        _ = [context.Semaphore() for _ in range(12 + 2 * jobs)]
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or "not supported"
        raise SalpipeError(
            f"/dev/shm: semaphores of worker processes cannot be made there ({reason}); mount it writable and with "
            "1 MB or more (docker run --shm-size)"
        ) from error


def run_in_workers(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int, threads: int
) -> Generator[Any]:
    """Call a function in worker processes, which end when the last result is taken or the iterator is closed.

    Args:
        function: importable by its name.
        calls: the arguments of each call.
        jobs: number of processes.
        threads: of each process, for libraries that ask the environment.

    Returns:
        The results, as they become ready.

    Raises:
        WorkerDiedError: a worker process died, and the others were ended.
    """
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    left, executor = iter(calls), None
    try:
        with warnings.catch_warnings():
            # loky ends a worker that has grown between two calls, starts another, and says so as if it were a fault
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            # it asks for tools that slim containers lack, to end processes that are ended below
            warnings.filterwarnings("ignore", "Failed to kill subprocesses", UserWarning)
            with interruptions_held():
                # starting it ends the hold
                resource_tracker.ensure_running()
            with interruptions_held():
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
                    with interruptions_held():
                        waiting |= {executor.submit(function, *call) for call in islice(left, 1)}
                    yield future.result()
    except TerminatedWorkerError as error:
        raise WorkerDiedError(_how_it_ended(str(error))) from error
    finally:
        if executor is not None:
            # not by loky's own way to kill workers, which fails where calls still wait
            for process in list(executor._processes.values()):
                # another thread of loky's may find it ended meanwhile
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
    """What to say when workers died in every attempt, the last time with `error`."""
    ended = str(error)
    cause = _CAUSES.get(ended, _CRASHED if ended.startswith("SIG") else _CAUSES["SIGKILL"])
    return SalpipeError(f"worker processes died {ATTEMPTS} times ({ended}), {cause}")


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Processes started meanwhile never hear an interruption; the run itself answers it afterwards."""
    held: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    # inherited by processes, and by threads that start further processes later
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        if threading.current_thread() is threading.main_thread():
            # another thread may take a signal, which Python then answers in this one
            for number in INTERRUPTIONS:
                if signal.getsignal(number) is not None:
                    handlers[number] = signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if held:
            signal.raise_signal(held[0])


def become_worker(run: int) -> None:
    """Called in a worker process before its first call.

    Args:
        run: process id of the run that started it, which it ends with.
    """
    from tqdm import tqdm

    # tqdm's own lock is a semaphore of the system, and its guard writes to the terminal when a worker is ended
    tqdm.set_lock(threading.RLock())
    try:
        threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    except RuntimeError:
        os._exit(_NO_THREAD)


def _end_with(run: int) -> None:
    """End this worker when its run is gone: one that was killed can no longer tell it to."""
    while os.getppid() == run:
        time.sleep(0.5)
    os._exit(1)


def _how_it_ended(message: str) -> str:
    """The signal or exit code in loky's message, which ends with, for instance, `{SIGKILL(-9)}`."""
    ended = re.search(r"\{(SIG[A-Z0-9]+|EXIT)\((-?[0-9]+)\)", message)
    if ended is None:
        return "cause unknown"
    return f"exit code {ended[2]}" if ended[1] == "EXIT" else ended[1]
