"""The training runs of a comparison, fanned out over processes here or on a cluster; each resumes after a kill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.comparison.config import Execution
from saliency_pipeline.comparison.plan import TUNING, Task
from saliency_pipeline.comparison.runs import TEST, is_finished
from saliency_pipeline.comparison.tuning import is_diverged, mark_diverged
from saliency_pipeline.devices import limited_threads
from saliency_pipeline.errors import DivergedError, FolderInUseError, SalpipeError
from saliency_pipeline.evaluation.evaluate import EVALUATION, evaluate
from saliency_pipeline.execution.engines import Calls, open_engine
from saliency_pipeline.folders import make_subfolder
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.run import train
from saliency_pipeline.workers import ATTEMPTS, WorkerDiedError, workers_died

PATIENCE = 10.0
"""Seconds to wait for a worker that has lost its comparison and still holds a run's folder."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run: its final validation top-1, or the error that stopped it."""

    folder: str
    final: float = 0.0
    error: str = ""


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
                tasks_left = ((task, os.path.abspath(folder), threads, execution.log) for task in left)
                with (
                    _workers(execution, threads, tasks[0].config.device != "cpu", progress.note) as calls,
                    closing(calls(run_task, tasks_left)) as outcomes,
                ):
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


def run_task(task: Task, folder: str, threads: int, log: Sequence[str] = ()) -> Outcome:
    """Train one run in the current process, with its own number of threads."""
    run = Path(folder) / task.folder
    with limited_threads(threads):
        try:
            make_subfolder(run, inside=Path(folder))
            for waited in range(int(PATIENCE)):
                try:
                    report = train(task.shards, run, task.config, log=log)
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
def _workers(execution: Execution, threads: int, gpu: bool, note: Callable[[str], None]) -> Iterator[Calls]:
    """What calls a function in workers, or in this process for one job of this machine."""
    jobs = execution.jobs or 1
    if execution.engine == "loky" and jobs == 1:
        yield lambda function, calls: (function(*call) for call in calls)
    else:
        with open_engine(execution, jobs, threads, most=jobs, gpu=gpu, note=note) as calls:
            yield calls
