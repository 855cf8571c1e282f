"""Summaries of an arm: its runs, mean curves, final accuracy, speed and recalls under a data budget, and its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.comparison.contrasts import Conditions, score, to_threshold
from saliency_pipeline.comparison.rules import AREA, SPEED
from saliency_pipeline.comparison.runs import Run, recalls
from saliency_pipeline.statistics.interquartile import interquartile
from saliency_pipeline.statistics.speed import carried, censored_median, own_level

_CURVES = ("train_loss", "train_top1", "validation_loss", "validation_top1")


def summarize(runs: Sequence[Run], where: Conditions, classes: Sequence[str]) -> dict[str, Any]:
    """What the runs of one arm show, as in `arms` of a budget in results.json.

    Curves that ended early (`--patience`) are carried forward with their last value, so that every run counts at every
    epoch.

    Args:
        runs: one or more, of one arm and one budget.
        where: conditions of the budget.
        classes: names of the classes.
    """
    rows = [_run(run, where) for run in runs]
    tested = [row["test"] for row in rows if row["test"] is not None]
    predictions = [run.validation for run in runs if run.validation]
    reached = [row["epochs_to_threshold"] for row in rows]
    finals = [run.final for run in runs]
    return {
        "runs": rows,
        "curves": {name: _band([carried(run.curves[name], where.epochs) for run in runs]) for name in _CURVES},
        "final": _spread(finals),
        "interquartile": asdict(interquartile([np.array(finals, np.float64)])),
        "gap": _spread([row["gap"] for row in rows]),
        "test": _spread(tested) if tested else None,
        "own_level": own_level([run.curves["validation_top1"] for run in runs]),
        "time": _spread([row["time"] for row in rows]),
        "median_epochs_to_threshold": censored_median(reached),
        "never_reached": sum(epoch is None for epoch in reached),
        "recalls": recalls(predictions, classes) if predictions else None,
    }


def mean_starts(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]] | None]:
    """The mean distance of the first networks of each arm from plain transfer.

    Args:
        runs: finished runs.

    Returns:
        By arm `features` and `logits`, each with `eval` and `train`: norms relative to the baseline's, see
        `training.start`. None for an arm without a second branch or without measurements.
    """
    return {
        arm: _mean_start([run.start for run in runs if run.arm == arm and run.start is not None])
        for arm in dict.fromkeys(run.arm for run in runs)
    }


def _mean_start(starts: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]] | None:
    if not starts:
        return None
    return {
        part: {mode: float(np.mean([start[part][mode] for start in starts])) for mode in ("eval", "train")}
        for part in ("features", "logits")
    }


def _run(run: Run, where: Conditions) -> dict[str, Any]:
    curve = run.curves["validation_top1"]
    return {
        "seed": run.config.seed,
        "fold": run.config.fold,
        "final": run.final,
        "best": float(curve.max()),
        "area": score(run, AREA, where),
        "time": score(run, SPEED, where),
        "gap": float(run.curves["train_top1"][-1]) - run.final,
        "epochs_to_threshold": to_threshold(run, where),
        "test": float(run.test.right.mean()) if run.test else None,
        "curve": carried(curve, where.epochs).tolist(),
        "epochs_trained": len(curve),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation; a single value has no standard deviation."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _band(curves: Sequence[npt.NDArray[np.float64]]) -> dict[str, list[float]]:
    """Pointwise mean of curves of one length, and one standard deviation of the runs around it."""
    table = np.array(curves, np.float64)
    mean = table.mean(axis=0)
    sd = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros_like(mean)
    return {"mean": mean.tolist(), "low": (mean - sd).tolist(), "high": (mean + sd).tolist()}
