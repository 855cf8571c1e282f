"""Worker processes of this machine: they end with the run that started them, and never hear Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from tqdm import tqdm

ATTEMPTS = 3
"""How often a run goes on after a worker process died: the memory killer may strike once without meaning it."""


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile never hear Ctrl-C, which a terminal sends to all: the run alone answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@cache
def become_worker(run: int) -> None:
    """Called in a worker before its first job.

    Args:
        run: process id of the run that started it, which it ends with.
    """
    # tqdm's own lock is a semaphore of the system, and its guard writes to the terminal when a worker is ended.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()


def _end_with(run: int) -> None:
    """End this worker when its run is gone: one that was killed can no longer tell it to."""
    if os.getpid() == run:  # joblib does a single job, or all where it may not fork, in the run itself
        return
    while os.getppid() == run:
        time.sleep(0.5)
    os._exit(1)
