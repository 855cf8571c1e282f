"""The cluster that writes shards; imports little, so that it can be started while the libraries are imported."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from saliency_pipeline.execution.config import Workers
from saliency_pipeline.execution.engines import Calls, open_engine
from saliency_pipeline.workers import usable_cores

_IMPORTS = ("saliency_pipeline.generation.fan_out",)


def threads_of(jobs: int) -> int:
    """The number of threads of each of `jobs` processes of this machine."""
    return max(1, usable_cores() // jobs)


def open_cluster(
    workers: Workers, jobs: int, device: str, note: Callable[[str], None] = lambda _: None
) -> AbstractContextManager[Calls]:
    """Start or connect to the workers that explain images on a device; see `open_engine`."""
    return open_engine(workers, jobs, threads_of(jobs), gpu=device != "cpu", imports=_IMPORTS, note=note)
