"""Stages of a comparison's training: pretraining, then tuning, then the runs of some repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.comparison.config import Execution
from saliency_pipeline.comparison.jobs import Outcome, run_tasks
from saliency_pipeline.comparison.plan import TUNING, Plan, Task
from saliency_pipeline.comparison.runs import Run, is_finished, read_run
from saliency_pipeline.comparison.tuning import is_diverged, tuned, tuning_tasks
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress


@dataclass(frozen=True)
class Trained:
    """Some repeats of a comparison, as far as they could be trained.

    Attributes:
        tasks: the runs, with their tuned rates; without those that could not be tuned.
        failed: a line for every run that is not finished.
        extra: pretraining and inner runs.
    """

    tasks: tuple[Task, ...] = ()
    failed: tuple[str, ...] = ()
    extra: tuple[Task, ...] = ()

    def __add__(self, other: Trained) -> Trained:
        return Trained(self.tasks + other.tasks, self.failed + other.failed, self.extra + other.extra)

    def runs(self, folder: Path) -> list[Run]:
        """The finished runs of the arms."""
        return _finished(self.tasks, folder)

    def tuning_runs(self, folder: Path) -> list[Run]:
        """The finished inner runs."""
        return _finished([task for task in self.extra if task.purpose == TUNING], folder)


def train_repeats(
    plan: Plan, folder: Path, repeats: Sequence[int], execution: Execution, progress: Progress
) -> Trained:
    """Train the runs of some repeats, counted from 0, that are not finished.

    Raises:
        SalpipeError: a pretraining failed, workers die again and again, or a full disk.
    """

    def run(tasks: Sequence[Task], label: str) -> list[Outcome]:
        return run_tasks(tasks, folder, execution, threads=plan.threads, label=label, progress=progress)

    lrs = plan.config.lrs
    pretrainings, tasks = plan.pretrainings(repeats), plan.tasks(folder, repeats)
    if failed := run(pretrainings, "pretraining"):
        raise SalpipeError(f"pretraining failed: {failed[0].error}")
    inner = tuning_tasks(tasks, lrs)
    not_tuned = run(inner, "tuning")
    ready, left = tuned(tasks, folder, lrs)
    outcomes = run(ready, "training")
    errors = [f"{outcome.folder} is not finished: {outcome.error}" for outcome in outcomes]
    errors += [_without_rate(task, folder, plan, not_tuned) for task in left]
    return Trained(tuple(ready), tuple(errors), (*pretrainings, *inner))


def _finished(tasks: Sequence[Task], folder: Path) -> list[Run]:
    return [
        read_run(folder / task.folder, task.arm, task.setting)
        for task in tasks
        if is_finished(folder / task.folder, task.config)
    ]


def _without_rate(task: Task, folder: Path, plan: Plan, outcomes: Sequence[Outcome]) -> str:
    inner = tuning_tasks([task], plan.config.lrs)
    if all(is_diverged(folder / each.folder) for each in inner):
        return f"{task.folder} is not finished: its loss became infinite at every --lr; give lower ones"
    errors = {outcome.folder: outcome.error for outcome in outcomes}
    error = next((errors[each.folder] for each in inner if each.folder in errors), "an inner run is missing")
    return f"{task.folder} is not finished, since its rate was not chosen: {error}"
