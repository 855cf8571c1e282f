"""Processes that kill or stop themselves at a moment counted in accesses to files.

A test that watches another process to signal it may sleep through the moment on a busy machine: a start takes seconds,
the work between two files takes milliseconds.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

UNDISTURBED = (0, 0.0)
"""The moment that never comes: the child ends by itself."""


def signal_itself(output: object, number: int, moment: int, delay: float = 0) -> None:
    """Let this process signal itself, `delay` seconds after its n-th access to a temporary file in a folder.

    A file takes 3 to 4 accesses: it is opened (counted twice), renamed and, except for shards, removed.
    """

    def signal_now() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), number)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal moment
        if any(isinstance(part, str) and part.startswith(str(output)) and "tmp." in part for part in arguments):
            moment -= 1
            if moment == 0:
                threading.Thread(target=signal_now).start() if delay else signal_now()

    sys.addaudithook(count)


def kill_at_call(owner: type, method: str, moment: int) -> None:
    """Let this process kill itself before its n-th call of a method of a class, in whichever thread."""
    whole, left, lock = getattr(owner, method), [moment], threading.Lock()

    def call(*arguments: object, **keywords: object) -> object:
        with lock:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **keywords)

    setattr(owner, method, call)


def kill_again_and_again(
    work: Callable[[], object], output: object, moments: Sequence[tuple[int, float]], state: Callable[[], object]
) -> None:
    """Call a function in children that kill themselves; the last line printed has how each ended and the state then."""
    ended = []
    for moment, delay in moments:
        child = os.fork()
        if child == 0:
            signal_itself(output, signal.SIGKILL, moment, delay)
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        ended.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), state()))
    print(json.dumps(ended), flush=True)


def script(module: str, text: str, *words: object, threads: int = 1) -> subprocess.Popen[str]:
    """A process with the names of a module that executes a line; it has not used PyTorch yet, so that it may fork."""
    command = [sys.executable, "-c", f"import sys; from {module} import *; {text}", *(str(word) for word in words)]
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_stop(process: subprocess.Popen[str]) -> None:
    """Wait until a process that stops itself stands still."""
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    assert state.si_code == os.CLD_STOPPED
