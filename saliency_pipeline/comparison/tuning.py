"""Tuning: the learning rate of every run, chosen on an inner split of its training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saliency_pipeline.comparison.plan import RUNS, TUNING, Task
from saliency_pipeline.comparison.results import Tuning
from saliency_pipeline.comparison.runs import is_finished, logged
from saliency_pipeline.training.runlog import write_json

DIVERGED = "diverged.json"
"""Marks an inner run whose loss became infinite: its rate is not chosen, and it is not trained again."""


def tuning_tasks(tasks: Sequence[Task], lrs: Sequence[float]) -> list[Task]:
    """The inner runs: each run at every rate, on four fifths of its training images."""
    return [_inner(task, lr) for task in tasks for lr in lrs]


def tuned(tasks: Sequence[Task], folder: Path, lrs: Sequence[float]) -> tuple[list[Task], list[Task]]:
    """The runs with the rates that their inner runs chose, and the runs for which none could be chosen.

    The rate with the highest inner validation top-1 after the last epoch is taken, the smaller one of equal rates.
    """
    if not lrs:
        return list(tasks), []
    ready, left = [], []
    for task in tasks:
        lr = best_rate(task, folder, lrs)
        if lr is None:
            left.append(task)
        else:
            ready.append(replace(task, config=replace(task.config, lr=lr)))
    return ready, left


def best_rate(task: Task, folder: Path, lrs: Sequence[float]) -> float | None:
    """The rate of a run; None where an inner run is not finished, or all of them diverged."""
    scores: dict[float, float] = {}
    for lr in sorted(lrs):
        inner = _inner(task, lr)
        place = folder / inner.folder
        if is_finished(place, inner.config):
            scores[lr] = logged(place, "last", "validation_top1")
        elif not is_diverged(place):
            return None
    # max takes the first of equal rates, which is the smallest
    return max(scores, key=lambda lr: scores[lr], default=None)


def mark_diverged(run: Path, reason: str) -> None:
    """Mark an inner run as diverged."""
    write_json(run / DIVERGED, {"error": reason})


def is_diverged(run: Path) -> bool:
    """True if an inner run diverged."""
    return (run / DIVERGED).is_file()


def chosen_rates(tasks: Sequence[Task], folder: Path, lrs: Sequence[float]) -> Tuning | None:
    """The rates that were chosen for runs of arms; None without tuning."""
    if not lrs:
        return None
    counts: dict[str, dict[str, Counter[str]]] = {}
    for task in tasks:
        counts.setdefault(task.setting, {}).setdefault(task.arm, Counter())[f"{task.config.lr:g}"] += 1
    inner = tuning_tasks(tasks, lrs)
    return Tuning(
        tuple(lrs),
        len(inner),
        sum(is_diverged(folder / task.folder) for task in inner),
        {
            setting: {
                arm: {f"{lr:g}": count[f"{lr:g}"] for lr in lrs if count[f"{lr:g}"]} for arm, count in arms.items()
            }
            for setting, arms in counts.items()
        },
    )


def diverged_rates(tasks: Sequence[Task], folder: Path) -> list[str]:
    """A sentence on inner runs that diverged, if there are any."""
    rates = [task.config.lr for task in tasks if is_diverged(folder / task.folder)]
    if not rates:
        return []
    several = ", ".join(f"{lr:g} in {rates.count(lr)}" for lr in sorted(set(rates)))
    return [f"tuning: the loss became infinite at --lr {several} of the inner runs; such a rate is not chosen"]


def _inner(task: Task, lr: float) -> Task:
    return replace(
        task,
        folder=f"{TUNING}/{task.folder.removeprefix(f'{RUNS}/')}/lr-{lr:g}",
        config=replace(task.config, lr=lr, inner_split=True),
        test=False,
        purpose=TUNING,
    )
