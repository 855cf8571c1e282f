"""The pending shards, written in this process, in worker processes, or on the workers of a cluster."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.execution.engines import Calls, open_engine, own_threads
from saliency_pipeline.generation.catalogue_file import Lines, read_records, read_summary, write_catalogue
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.job import Job, write_shard
from saliency_pipeline.generation.plan import ShardTask, library_versions, stored_plan
from saliency_pipeline.generation.receipt import RECEIPTS, Receipt, valid_receipt
from saliency_pipeline.generation.resolve import compares, resolve
from saliency_pipeline.generation.summary import summarize
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.source.registry import LOCAL, is_source
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.tuning import FRAMES
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.workers import ATTEMPTS, WorkerDiedError, usable_cores, workers_died

# Images that are tried for the background, which takes 64: more are not sent, as all of them hardly are unusable.
_CANDIDATES = 1024

_jobs: dict[tuple[object, ...], Job] = {}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class SharedPlan:
    """What a worker of a cluster needs to make its job: files that all workers share.

    Attributes:
        folder: the output folder, absolute.
        config: the configuration as it was requested; files in it have absolute paths.
        catalogue: file of the catalogue.
        threads: threads of a worker; None for those that the cluster gave it.
    """

    folder: str
    config: GenerateConfig
    catalogue: str
    threads: int | None


@dataclass(frozen=True)
class Resolved:
    """A job as the first worker resolved it, without images to compare with, and what it had to say."""

    job: Job
    notes: tuple[str, ...]


def share(
    folder: Path, config: GenerateConfig, catalogue: Catalogue, threads: int | None
) -> tuple[SharedPlan, list[Lines]]:
    """Write the catalogue for the workers of a cluster; returns what each is sent, and the lines of every shard.

    Raises:
        OptionError: the model is a relative path on a cluster that is running, or see `write_catalogue`.
    """
    # workers that the command starts have its working folder
    if threads is None:
        _refuse_relative(config.model)
    data = summarize(catalogue, measured=FRAMES, background=_CANDIDATES if compares(config) else 0)
    path, lines = write_catalogue(folder / RECEIPTS, catalogue, data, config.shard_size)
    if os.path.exists(config.weights):
        config = replace(config, weights=os.path.abspath(config.weights))
    return SharedPlan(str(folder), config, str(path), threads), lines


def _refuse_relative(model: str) -> None:
    """Refuse a model whose path would be another one in the working folder of a worker."""
    prefix = LOCAL if model.startswith(LOCAL) else ""
    path = model.removeprefix(prefix)
    if not os.path.isabs(path) and (prefix or (os.path.exists(path) and not is_source(model))):
        raise OptionError(
            f"--model {model}: a relative path, but workers run in other folders; use {prefix}{os.path.abspath(path)}"
        )


def in_processes(
    job: Job, gpus: tuple[str, ...], pending: Sequence[ShardTask], jobs: int, progress: Progress
) -> list[Receipt]:
    """Write shards in worker processes of this machine. If one dies, all are started again on the remaining shards.

    Args:
        job: the job.
        gpus: the GPUs that the processes divide among them, if these are not to share one.
        pending: the shards.
        jobs: number of processes.
        progress: receives notes and progress.

    Raises:
        SalpipeError: workers die in every attempt, or the disk is full; finished shards stay.
    """

    def calls(left: Iterable[ShardTask]) -> Iterable[tuple[Any, ...]]:
        return ((sent, task) for task in left)

    with TemporaryDirectory() as locks, open_engine(Workers(), jobs, job.placement.streams) as engine:
        sent = replace(job, gpus=gpus, locks=locks)
        return list(_fan_out(engine, write_shard, calls, job, pending, progress))


def on_cluster(
    engine: Calls,
    shared: SharedPlan,
    lines: Sequence[Lines],
    job: Job,
    pending: Sequence[ShardTask],
    progress: Progress,
) -> list[Receipt]:
    """Write shards on the workers of a cluster; those that do not match their receipts are written again.

    A worker that was taken for dead may write a shard and its receipt beside the worker that replaces it, hence the
    check. Arguments are small: records are read by the workers, from the catalogue's file.

    Raises:
        SalpipeError: a worker has other libraries or lacks the files; or as `in_processes`.
    """
    plan = job.header.plan

    def calls(left: Iterable[ShardTask]) -> Iterable[tuple[Any, ...]]:
        return ((shared, plan, task.index, lines[task.index]) for task in left)

    written: dict[str, Receipt] = {}
    for _ in range(ATTEMPTS):
        left = [task for task in pending if task.name not in written]
        checks: list[tuple[Receipt, Future[Receipt | None]]] = []
        with ThreadPoolExecutor(usable_cores(), "check") as pool:
            for receipt in _fan_out(engine, write_lines, calls, job, left, progress):
                checks.append((receipt, pool.submit(valid_receipt, Path(job.folder), receipt.shard.name, plan)))
        for receipt, check in checks:
            name = receipt.shard.name
            if checked := check.result():
                written[name] = checked
            else:
                progress.advance(-(receipt.shard.images + len(receipt.rejects)))
                progress.note(f"{name}: another worker wrote it as well; written again")
        if len(written) == len(pending):
            return list(written.values())
    raise SalpipeError(f"{job.folder}: shards do not match their receipts; check that all workers share this folder")


def resolve_on_worker(engine: Calls, shared: SharedPlan, note: Callable[[str], None]) -> Job:
    """The job, as a worker of a cluster resolves it: only there device, backend and precision can be chosen."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with closing(engine(resolve_here, [(shared,)])) as results:
                resolved: Resolved = next(results)
            for text in resolved.notes:
                note(text)
            return resolved.job
        except WorkerDiedError as error:
            death = error
            note(f"a worker process died ({error}) in attempt {attempt} of {ATTEMPTS}")
    raise workers_died(death)


def resolve_here(shared: SharedPlan) -> Resolved:
    """Resolve the job in this worker, which keeps it."""
    notes: list[str] = []
    with _one_at_a_time:
        job = _job(shared, notes.append)
    return Resolved(replace(job, background=None), tuple(notes))


def write_lines(shared: SharedPlan, plan: str, index: int, lines: Lines) -> Receipt:
    """Write one shard in a worker of a cluster, one at a time, whatever its number of threads."""
    with _one_at_a_time:
        job = _job(shared, lambda _: None)
        if job.header.plan != plan:
            raise SalpipeError(f"worker {socket.gethostname()}: {shared.folder} is not the folder of this run")
        return write_shard(job, ShardTask(index, read_records(Path(shared.catalogue), lines)))


def _job(shared: SharedPlan, note: Callable[[str], None]) -> Job:
    """The worker's job; the last one is kept."""
    # every run writes the file anew: a worker outlives a run, whose folder may then be begun again
    key = shared, os.stat(shared.catalogue).st_mtime_ns if os.path.exists(shared.catalogue) else 0
    if key not in _jobs:
        _jobs.clear()
        # for a worker that others started
        keep_large_blocks()
        try:
            data = read_summary(Path(shared.catalogue))
            _check_versions(Path(shared.folder))
            if not is_url(data.root) and not os.path.exists(data.root):
                raise SalpipeError(f"{data.root}: not there; all workers must share the images")
            threads = shared.threads or own_threads()
            _jobs[key], _ = resolve(Path(shared.folder), shared.config, data, threads, note)
        except SalpipeError as error:
            raise type(error)(f"worker {socket.gethostname()}: {error}") from error
    return _jobs[key]


def _check_versions(folder: Path) -> None:
    """Refuse to write shards of a plan with other libraries than those that it was made with."""
    if (stored := stored_plan(folder)) is None:
        return
    here = library_versions(stored.resolved.backend, stored.settings.methods)
    differences = [
        f"{name} {here.get(name, 'not installed')} instead of {version}"
        for name, version in stored.record["versions"].items()
        if here.get(name) != version
    ]
    if differences:
        raise SalpipeError(f"{', '.join(differences)}; install the same versions on all workers")


def _fan_out(
    engine: Calls,
    function: Callable[..., Receipt],
    calls: Callable[[Iterable[ShardTask]], Iterable[tuple[Any, ...]]],
    job: Job,
    pending: Sequence[ShardTask],
    progress: Progress,
) -> Generator[Receipt]:
    """Write shards and yield their receipts; if a worker dies for good, begin again with what is left."""
    written: set[str] = set()
    death: WorkerDiedError

    def counted(receipt: Receipt) -> Receipt:
        written.add(receipt.shard.name)
        progress.advance(receipt.shard.images + len(receipt.rejects))
        return receipt

    for attempt in range(1, ATTEMPTS + 1):
        left = [task for task in pending if task.name not in written]
        try:
            with closing(engine(function, calls(left))) as receipts:
                for receipt in receipts:
                    yield counted(receipt)
            return
        except WorkerDiedError as error:
            death = error
            progress.note(f"a worker process died ({error}) in attempt {attempt} of {ATTEMPTS}")
            # shards that were published by then count
            for task in left:
                if task.name not in written and (
                    receipt := valid_receipt(Path(job.folder), task.name, job.header.plan)
                ):
                    yield counted(job.send(receipt))
        finally:
            remove_temporaries(Path(job.folder))
    raise workers_died(death)


def remove_temporaries(folder: Path) -> None:
    """Remove files that workers left when they died while writing a shard or a receipt."""
    for place in (folder, folder / RECEIPTS):
        remove_stale_temporaries(place)
