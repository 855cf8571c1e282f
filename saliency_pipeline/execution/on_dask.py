"""Workers of a dask cluster, which may join, die and be replaced while they work."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution.engines import AHEAD, by_name, other_salpipe
from saliency_pipeline.memory import MALLOC
from saliency_pipeline.workers import (
    WorkerDiedError,
    check_shared_memory,
    interruptions_deferred,
    start_resource_tracker,
)

if TYPE_CHECKING:
    from saliency_pipeline.execution.engines import Calls

_SILENCE = 20.0
"""Seconds without a result after which it is checked that there are workers."""

_UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Settings without what dask measures for its dashboard, which takes 3 % of two cores."""

_ENVIRONMENT = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()}


@contextmanager
def dask_workers(
    address: str | None, jobs: int, most: int | None, imports: tuple[str, ...], note: Callable[[str], None]
) -> Iterator[Calls]:
    """Connect to the scheduler at an address, or start one with worker processes; see `open_engine`."""
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SalpipeError("--engine dask: not installed; run pip install 'saliency-pipeline[dask]'") from error
    others = set(multiprocessing.active_children())
    log = logging.getLogger("distributed")
    with ExitStack() as stack, ThreadPoolExecutor(1, "cluster") as background:
        # its lesser notes have a traceback for every connection that ends with its process
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.WARNING)
        if address is None:
            check_shared_memory(jobs)
            client = background.submit(_started, distributed, jobs, imports, stack)
        else:
            client = background.submit(_connected, distributed, address, stack)
            client.result()
        try:
            yield lambda function, calls: _run(distributed, client.result(), function, calls, most, note)
        finally:
            if not client.done():
                # an error or an interruption need not wait until all have started, which then fails
                for process in set(multiprocessing.active_children()) - others:
                    if process.name.startswith("Dask Worker"):
                        process.kill()


def _started(distributed: Any, jobs: int, imports: tuple[str, ...], stack: ExitStack) -> Any:
    """A client of a scheduler that is started with its workers."""
    config: Any = import_module("dask.config")
    start_resource_tracker()
    # killed workers do not remove theirs
    folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
    with interruptions_deferred(), config.set(_UNWATCHED | _ENVIRONMENT | {"temporary-directory": folder}):
        cluster = distributed.LocalCluster(
            n_workers=jobs,
            # a second thread would run a second call
            threads_per_worker=1,
            dashboard_address=None,
            # even without a dashboard it serves its state, by default at a port that a second one finds taken
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            # a worker above its share would be paused, and its memory read ten times a second
            memory_limit=0,
            preload=list(imports),
        )
    stack.enter_context(cluster)
    stack.callback(_kill_workers, cluster)
    return _connected(distributed, cluster.scheduler_address, stack)


def _kill_workers(cluster: Any) -> None:
    """End the workers of a cluster whose calls have ended: their libraries take a second to unload."""

    async def kill() -> None:
        for nanny in cluster.workers.values():
            # it must start no other worker
            nanny.close_gracefully()
            # it has none while it starts one
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)

    cluster.sync(kill)


def _connected(distributed: Any, address: str, stack: ExitStack) -> Any:
    """A client of a running scheduler."""
    try:
        client = distributed.Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise SalpipeError(f"--address {address}: no dask scheduler there; start one with 'dask scheduler'") from error
    # not as a context, which must be left in the thread that entered it
    stack.callback(client.close)
    return client


def _run(
    distributed: Any,
    client: Any,
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    most: int | None,
    note: Callable[[str], None],
) -> Generator[Any]:
    left, waiting, alone = iter(calls), set[Any](), False
    call = by_name(function)

    def submit() -> None:
        # workers may have joined or died since the last result
        bound = min(most or sys.maxsize, AHEAD * max(1, len(client.nthreads())))
        for arguments in islice(left, max(0, bound - len(waiting))):
            waiting.add(client.submit(call, pickle.dumps(arguments), pure=False))

    try:
        submit()
        while waiting:
            try:
                done, _ = distributed.wait(waiting, _SILENCE, "FIRST_COMPLETED")
            except TimeoutError:
                if not client.nthreads() and not alone:
                    alone = True
                    note(f"{client.scheduler.address}: no workers; waiting for some to join")
                continue
            alone = False
            for future in done:
                waiting.discard(future)
                result = future.result()
                future.release()
                submit()
                yield result
    except ImportError as error:
        raise other_salpipe(error) from error
    except distributed.KilledWorker as error:
        raise WorkerDiedError(type(error).__name__) from error
    except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
        raise SalpipeError(
            "--engine dask: the connection to the scheduler is lost; run the same command again to resume"
        ) from error
    finally:
        # what has not begun must not run after this command
        client.cancel(list(waiting))
