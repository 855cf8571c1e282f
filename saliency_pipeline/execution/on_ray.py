"""Workers of a ray cluster, whose nodes may join, die and be replaced while they work."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution.engines import AHEAD, by_name, other_salpipe
from saliency_pipeline.memory import MALLOC
from saliency_pipeline.workers import ATTEMPTS, WorkerDiedError

if TYPE_CHECKING:
    from saliency_pipeline.execution.engines import Calls


@contextmanager
def ray_workers(address: str | None, jobs: int, threads: int, most: int | None, gpu: bool) -> Iterator[Calls]:
    """Connect to a running cluster, or start one on this machine; see `open_engine`.

    Not through joblib, whose pool on ray has no generators and divides work unevenly (ray issues 41028 and 23184).
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise SalpipeError("--engine ray: not installed; run pip install 'saliency-pipeline[ray]'") from error
    # a node of a cluster that has fewer CPUs than a call asks for never gets one
    threads = 1 if address else threads
    own = {} if address else {"num_cpus": jobs * threads, "include_dashboard": False}
    try:
        # without an address ray would join a cluster that its environment names
        ray.init(
            address or "local",
            logging_level="ERROR",
            log_to_driver=False,
            runtime_env={"env_vars": MALLOC},
            **own,
        )
    except ConnectionError as error:
        raise SalpipeError(f"--address {address}: no ray cluster there; start one with 'ray start'") from error
    try:
        gpus = int(gpu and ray.cluster_resources().get("GPU", 0) >= 1)
        yield lambda function, calls: _run(ray, {"CPU": threads, "GPU": gpus}, most, function, calls)
    finally:
        ray.shutdown()


def _run(
    ray: Any,
    needs: dict[str, int],
    most: int | None,
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
) -> Generator[Any]:
    remote = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=ATTEMPTS)(by_name(function))
    left = iter(calls)
    waiting: list[Any] = []
    errors = ray.exceptions
    dead = (errors.WorkerCrashedError, errors.NodeDiedError, errors.RayActorError, errors.OutOfMemoryError)

    def submit() -> None:
        # nodes may have joined or died since the last result
        there = ray.cluster_resources()
        slots = min(int(there.get(name, 0)) // count for name, count in needs.items() if count)
        bound = min(most or sys.maxsize, AHEAD * max(1, slots))
        waiting.extend(remote.remote(pickle.dumps(call)) for call in islice(left, max(0, bound - len(waiting))))

    try:
        submit()
        while waiting:
            done, waiting[:] = ray.wait(waiting)
            result = ray.get(done[0])
            submit()
            yield result
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SystemExit):
            # its node ends
            raise WorkerDiedError("SIGTERM") from error
        if isinstance(error.cause, ImportError):
            raise other_salpipe(error.cause) from error
        # its own message is the traceback of the worker
        raise error.cause from None
    except dead as error:
        raise WorkerDiedError(type(error).__name__) from error
    finally:
        for reference in waiting:
            # what runs may end: it publishes whole shards and runs only
            ray.cancel(reference, force=False)
