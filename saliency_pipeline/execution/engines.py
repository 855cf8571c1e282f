"""One way to call a function on many workers, whatever engine has them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.workers import run_in_workers, usable_cores

Calls = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Generator[Any]]
"""Calls a function, importable by its name, with each tuple of arguments, and yields the results as they become ready.

Arguments are taken as workers become free, so that a bounded number is in flight. It raises what the function raises,
and WorkerDiedError when workers died of a call as often as the engine allows.
"""

AHEAD = 2
"""Calls in flight per worker: one that runs and one that waits for it."""


@contextmanager
def open_engine(
    workers: Workers,
    jobs: int,
    threads: int,
    *,
    most: int | None = None,
    gpu: bool = False,
    imports: tuple[str, ...] = (),
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Calls]:
    """Start worker processes, or connect to a cluster, while a `with` block runs.

    Workers that dask starts do so in the background: the first call waits for them.

    Args:
        workers: engine and address.
        jobs: number of worker processes that are started; of no effect on a cluster that is running.
        threads: threads of each.
        most: maximum number of calls in flight on a cluster; None for two per worker.
        gpu: whether a call uses a GPU where a worker has one.
        imports: modules that workers which dask starts import at once, before their first call.
        note: receives notes.

    Raises:
        SalpipeError: the engine is not installed, or there is no cluster at the address.
    """
    if workers.engine == "dask":
        from saliency_pipeline.execution.on_dask import dask_workers

        with dask_workers(workers.address, jobs, most, imports, note) as calls:
            yield calls
    elif workers.engine == "ray":
        from saliency_pipeline.execution.on_ray import ray_workers

        with ray_workers(workers.address, jobs, threads, most, gpu) as calls:
            yield calls
    else:
        yield lambda function, calls: run_in_workers(function, calls, jobs, threads)


def own_threads() -> int:
    """The number of threads that this process should use: in a worker of a cluster, those that the worker has."""
    if distributed := sys.modules.get("distributed"):
        try:
            return int(distributed.get_worker().state.nthreads)
        except ValueError:
            pass
    if (ray := sys.modules.get("ray")) and ray.is_initialized():
        cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
        if cpus >= 1:
            return int(cpus)
    return usable_cores()


def by_name(function: Callable[..., Any]) -> Callable[[bytes], Any]:
    """A call of a function that a worker looks up itself.

    It is sent by value, as an inner function: of a function that is sent by name and that a worker cannot find, dask's
    worker leaves the cluster without a word, and ray's has a traceback. Arguments are pickled by the caller.

    Raises:
        ImportError: in the worker, which it names, if that has no such function or lacks a class of the arguments.
    """
    module, name = function.__module__, function.__qualname__

    def call(arguments: bytes) -> Any:
        import importlib
        import pickle
        import socket

        try:
            target = getattr(importlib.import_module(module), name)
            values = pickle.loads(arguments)
        except (ImportError, AttributeError) as error:
            raise ImportError(f"worker {socket.gethostname()}: {error}") from None
        return target(*values)

    return call


def other_salpipe(error: ImportError) -> SalpipeError:
    """The error of a worker without salpipe, or with another version, in one line."""
    return SalpipeError(f"{error}; install the same salpipe on all workers")
