"""The training runs of a comparison, fanned out over processes here or on a cluster; each resumes after a kill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib

from saliency_pipeline.comparison.config import Execution
from saliency_pipeline.comparison.plan import TUNING, Task
from saliency_pipeline.comparison.runs import TEST, is_finished
from saliency_pipeline.comparison.tuning import is_diverged, mark_diverged
from saliency_pipeline.devices import limited_threads
from saliency_pipeline.errors import DivergedError, FolderInUseError, SalpipeError
from saliency_pipeline.evaluation.evaluate import EVALUATION, evaluate
from saliency_pipeline.folders import make_subfolder
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.run import train
from saliency_pipeline.workers import (
    ATTEMPTS,
    WorkerDiedError,
    check_shared_memory,
    interruptions_deferred,
    run_in_workers,
    workers_died,
)

PATIENCE = 10.0
"""Seconds to wait for a worker that has lost its comparison and still holds a run's folder."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run: its final validation top-1, or the error that stopped it."""

    folder: str
    final: float = 0.0
    error: str = ""


Calls = Callable[[Sequence[Task], Path, int], Generator[Outcome]]


def run_tasks(
    tasks: Sequence[Task],
    folder: Path,
    execution: Execution,
    *,
    threads: int,
    label: str = "training",
    progress: Progress,
) -> list[Outcome]:
    """Train the runs that are not finished.

    A run that cannot be trained does not stop the others. If a worker dies, its run resumes from its last checkpoint
    in another worker. With one job, runs are trained in this process unless they run on a cluster.

    Returns:
        The runs that are not finished.

    Raises:
        SalpipeError: workers die again and again, or the engine is not installed.
    """
    left = [task for task in tasks if not is_done(task, folder)]
    if not left:
        return []
    progress.start(len(tasks), "run", label)
    progress.advance(len(tasks) - len(left))
    failed: dict[str, Outcome] = {}
    death: WorkerDiedError
    try:
        for attempt in range(1, ATTEMPTS + 1):
            left = [task for task in left if task.folder not in failed and not is_done(task, folder)]
            try:
                with _workers(execution) as calls, closing(calls(left, folder, threads)) as outcomes:
                    for outcome in outcomes:
                        if outcome.error:
                            failed[outcome.folder] = outcome
                        progress.note(f"{outcome.folder}: {outcome.error or f'{outcome.final:.1%}'}")
                        progress.advance(1)
                break
            except WorkerDiedError as error:
                death = error
                progress.note(f"a worker process died ({error}) in attempt {attempt} of {ATTEMPTS}")
        else:
            raise workers_died(death)
    finally:
        progress.stop()
    return list(failed.values())


def is_done(task: Task, folder: Path) -> bool:
    """True if a run is trained, and evaluated on the test images if required; or if an inner run diverged."""
    run = folder / task.folder
    if task.purpose == TUNING and is_diverged(run):
        return True
    return is_finished(run, task.config) and (not task.test or (run / TEST / EVALUATION).is_file())


def run_task(task: Task, folder: str, threads: int) -> Outcome:
    """Train one run in the current process, with its own number of threads."""
    run = Path(folder) / task.folder
    with limited_threads(threads):
        try:
            make_subfolder(run, inside=Path(folder))
            for waited in range(int(PATIENCE)):
                try:
                    report = train(task.shards, run, task.config)
                    break
                except FolderInUseError:
                    if waited == PATIENCE - 1:
                        raise
                    time.sleep(1)
            if task.test:
                make_subfolder(run / TEST)
                evaluate(run, task.shards, "test", run / TEST, device=task.config.device)
            return Outcome(task.folder, report.last.validation_top1 or 0.0)
        except SalpipeError as error:
            if isinstance(error, DivergedError) and task.purpose == TUNING:
                mark_diverged(run, str(error))
            return Outcome(task.folder, error=str(error))


@contextmanager
def _workers(execution: Execution) -> Iterator[Calls]:
    """A function that yields the outcomes of tasks from these, the folder and the threads per task."""
    engine, jobs, address = execution.engine, execution.jobs or 1, execution.address
    with ExitStack() as stack:
        if engine == "dask":
            yield _on_cluster(_dask(jobs, address, stack), "generator_unordered")
        elif engine == "ray":
            # ray's pool has no generators
            yield _on_cluster(_ray(jobs, address, stack), "list")
        elif jobs == 1:
            yield lambda tasks, folder, threads: (run_task(task, str(folder), threads) for task in tasks)
        else:
            yield lambda tasks, folder, threads: run_in_workers(
                run_task, ((task, os.path.abspath(folder), threads) for task in tasks), jobs, threads
            )


def _on_cluster(dead: tuple[type[BaseException], ...], kind: str) -> Calls:
    """Run the tasks on a cluster, where the errors `dead` mean that a worker died."""

    def calls(tasks: Sequence[Task], folder: Path, threads: int) -> Generator[Outcome]:
        parallel = joblib.Parallel(pre_dispatch="all", return_as=kind, batch_size=1)
        with interruptions_deferred():
            outcomes = parallel(joblib.delayed(run_task)(task, os.path.abspath(folder), threads) for task in tasks)
        try:
            yield from outcomes
        except dead as error:
            raise WorkerDiedError(type(error).__name__) from error

    return calls


def _dask(jobs: int, address: str | None, stack: ExitStack) -> tuple[type[BaseException], ...]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SalpipeError("--engine dask: not installed; run pip install 'saliency-pipeline[dask]'") from error
    if address is None:
        check_shared_memory(jobs)
        with interruptions_deferred():
            cluster = distributed.LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                dashboard_address=None,
                # even without a dashboard it serves its state, by default at a port that a second cluster finds taken
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            )
        address = stack.enter_context(cluster).scheduler_address
    try:
        stack.enter_context(distributed.Client(address, timeout=30))
    except (OSError, ValueError) as error:
        raise SalpipeError(f"--address {address}: no dask scheduler there; start one with 'dask scheduler'") from error
    stack.enter_context(joblib.parallel_config("dask", n_jobs=jobs))
    return (distributed.KilledWorker,)


def _ray(jobs: int, address: str | None, stack: ExitStack) -> tuple[type[BaseException], ...]:
    try:
        ray: Any = import_module("ray")
        import_module("ray.util.joblib").register_ray()
    except ImportError as error:
        raise SalpipeError("--engine ray: not installed; run pip install 'saliency-pipeline[ray]'") from error
    try:
        ray.init(address, **({} if address else {"num_cpus": jobs, "include_dashboard": False}))
    except ConnectionError as error:
        raise SalpipeError(f"--address {address}: no ray cluster there; start one with 'ray start'") from error
    stack.callback(ray.shutdown)
    stack.enter_context(joblib.parallel_config("ray", n_jobs=jobs))
    return (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)
