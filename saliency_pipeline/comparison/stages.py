"""Stages of a comparison's training: pretraining, then tuning, then the runs of some repeats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saliency_pipeline.comparison.config import Execution
from saliency_pipeline.comparison.jobs import Outcome, run_tasks
from saliency_pipeline.comparison.plan import TUNING, Plan, Task
from saliency_pipeline.comparison.runs import Run, is_finished, read_run
from saliency_pipeline.comparison.tuning import best_rate, is_diverged, tuned, tuning_tasks
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.config import SELF


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
    finished, errors, extra = list[Task](), list[str](), list[Task](pretrainings)
    # baselines first, whose networks make the maps of the others
    for part in (_with_other_maps(tasks), _with_self_maps(tasks)):
        inner = [_with_inner_baseline(task, tasks, folder, lrs) for task in tuning_tasks(part, lrs)]
        not_tuned = run(inner, "tuning")
        ready, left = tuned(part, folder, lrs)
        outcomes = run(ready, "training")
        errors += [f"{outcome.folder} is not finished: {outcome.error}" for outcome in outcomes]
        errors += [_without_rate(task, folder, plan, not_tuned) for task in left]
        finished, extra = finished + ready, extra + inner
    order = {task.folder: number for number, task in enumerate(tasks)}
    finished.sort(key=lambda task: order[task.folder])
    return Trained(tuple(finished), tuple(errors), tuple(extra))


def _with_other_maps(tasks: Sequence[Task]) -> list[Task]:
    """The runs that need no other run of the comparison first."""
    return [task for task in tasks if task.config.maps != SELF]


def _with_self_maps(tasks: Sequence[Task]) -> list[Task]:
    """The runs with maps of their own baseline, arm by arm: those at the same time have different baselines.

    The first run of a baseline makes its maps, which the others read.
    """
    own = [task for task in tasks if task.config.maps == SELF]
    places = {arm: place for place, arm in enumerate(dict.fromkeys(task.arm for task in own))}
    return sorted(own, key=lambda task: places[task.arm])


def _with_inner_baseline(task: Task, tasks: Sequence[Task], folder: Path, lrs: Sequence[float]) -> Task:
    """An inner run whose maps are made by the baseline's inner run: the baseline itself saw its validation images."""
    baseline = next((t for t in tasks if os.path.abspath(folder / t.folder) == task.config.from_baseline), None)
    if baseline is None or (lr := best_rate(baseline, folder, lrs)) is None:
        return task
    inner = tuning_tasks([baseline], [lr])[0].folder
    return replace(task, config=replace(task.config, from_baseline=os.path.abspath(folder / inner)))


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
