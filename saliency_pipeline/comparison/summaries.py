"""Summaries of an arm: its runs, mean curves, final accuracy, speed and recalls under a data budget, and its start."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from saliency_pipeline.comparison.contrasts import Conditions, score, to_threshold
from saliency_pipeline.comparison.results import ArmResult, Band, Curves, Modes, RunResult, Spread, Start
from saliency_pipeline.comparison.rules import AREA, SPEED
from saliency_pipeline.comparison.runs import Run, recalls
from saliency_pipeline.statistics.interquartile import interquartile
from saliency_pipeline.statistics.speed import carried, censored_median, own_level


def summarize(runs: Sequence[Run], where: Conditions, classes: Sequence[str]) -> ArmResult:
    """Summary of the runs of one arm under one data budget.

    Curves that ended early (`--patience`) are carried forward with their last value, so that every run counts at every
    epoch.
    """
    rows = tuple(_run(run, where) for run in runs)
    tested = [row.test for row in rows if row.test is not None]
    predictions = [run.validation for run in runs if run.validation]
    reached = [row.epochs_to_threshold for row in rows]
    finals = [run.final for run in runs]
    times = [row.time for row in rows if row.time is not None]

    def band(name: str) -> Band:
        return _band([carried(run.curves[name], where.epochs) for run in runs])

    return ArmResult(
        rows,
        Curves(band("train_loss"), band("train_top1"), band("validation_loss"), band("validation_top1")),
        final=_spread(finals),
        interquartile=interquartile([np.array(finals, np.float64)]),
        gap=_spread([row.gap for row in rows]),
        test=_spread(tested) if tested else None,
        own_level=own_level([run.curves["validation_top1"] for run in runs]),
        time=_spread(times) if times else None,
        median_epochs_to_threshold=censored_median(reached),
        never_reached=sum(epoch is None for epoch in reached) if where.threshold else 0,
        recalls=tuple(recalls(predictions, classes)) if predictions else None,
    )


def mean_starts(runs: Sequence[Run]) -> dict[str, Start | None]:
    """By arm, the mean distance of its first networks from plain transfer, see `training.start`.

    None for an arm without a second branch or without measurements.
    """
    return {
        arm: _mean_start([run.start for run in runs if run.arm == arm and run.start is not None])
        for arm in dict.fromkeys(run.arm for run in runs)
    }


def _mean_start(starts: Sequence[Start]) -> Start | None:
    if not starts:
        return None
    features, logits = ([getattr(start, part) for start in starts] for part in ("features", "logits"))
    return Start(_mean_modes(features), _mean_modes(logits))


def _mean_modes(modes: Sequence[Modes]) -> Modes:
    return Modes(float(np.mean([each.eval for each in modes])), float(np.mean([each.train for each in modes])))


def _run(run: Run, where: Conditions) -> RunResult:
    curve = run.curves["validation_top1"]
    return RunResult(
        run.config.seed,
        run.config.fold,
        final=run.final,
        best=float(np.nanmax(curve)),
        area=score(run, AREA, where),
        time=score(run, SPEED, where),
        gap=float(run.curves["train_top1"][-1]) - run.final,
        epochs_to_threshold=to_threshold(run, where),
        test=float(run.test.right.mean()) if run.test else None,
        curve=_listed(carried(curve, where.epochs)),
        epochs_trained=len(curve),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _band(curves: Sequence[npt.NDArray[np.float64]]) -> Band:
    table = np.array(curves, np.float64)
    mean = table.mean(axis=0)
    sd = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros_like(mean)
    return Band(*(_listed(values) for values in (mean, mean - sd, mean + sd)))


def _listed(curve: npt.NDArray[np.float64]) -> tuple[float | None, ...]:
    """A curve (E,) for results.json: None where an epoch was not validated."""
    return tuple(None if math.isnan(value) else value for value in curve.tolist())
