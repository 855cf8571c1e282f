"""Workers of a dask cluster, which may join, die and be replaced while they work."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution.engines import AHEAD, by_name, other_salpipe
from saliency_pipeline.workers import WorkerDiedError, check_shared_memory, interruptions_deferred

if TYPE_CHECKING:
    from saliency_pipeline.execution.engines import Calls

_SILENCE = 20.0
"""Seconds without a result after which it is checked that there are workers."""


@contextmanager
def dask_workers(address: str | None, jobs: int, most: int | None, note: Callable[[str], None]) -> Iterator[Calls]:
    """Connect to the scheduler at an address, or start one with worker processes; see `open_engine`."""
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SalpipeError("--engine dask: not installed; run pip install 'saliency-pipeline[dask]'") from error
    with ExitStack() as stack:
        if address is None:
            check_shared_memory(jobs)
            with interruptions_deferred():
                cluster = distributed.LocalCluster(
                    n_workers=jobs,
                    # a second thread would run a second call
                    threads_per_worker=1,
                    dashboard_address=None,
                    # even without a dashboard it serves its state, by default at a port that a second one finds taken
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                )
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(distributed.Client(address, timeout=30))
        except (OSError, ValueError) as error:
            raise SalpipeError(
                f"--address {address}: no dask scheduler there; start one with 'dask scheduler'"
            ) from error
        yield lambda function, calls: _run(distributed, client, function, calls, most, note)


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
