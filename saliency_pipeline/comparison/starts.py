"""How far the first network of each arm is from plain transfer, as its runs measured it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.runlog import PROVENANCE, read_json


def mean_starts(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]] | None]:
    """The mean distance over the runs of each arm; None for an arm without a second branch or without measurements.

    Args:
        runs: finished runs.

    Returns:
        By arm `features` and `logits`, each with `eval` and `train`: norms relative to the baseline's, see
        `training.start`.

    Raises:
        SalpipeError: a run's provenance is damaged.
    """
    return {
        arm: _mean([start for run in runs if run.arm == arm and (start := _start(run)) is not None])
        for arm in dict.fromkeys(run.arm for run in runs)
    }


def _mean(starts: Sequence[Any]) -> dict[str, dict[str, float]] | None:
    if not starts:
        return None
    return {
        part: {mode: float(np.mean([start[part][mode] for start in starts])) for mode in ("eval", "train")}
        for part in ("features", "logits")
    }


def _start(run: Run) -> Any:
    path = run.folder / PROVENANCE
    start = read_json(path).get("start")
    try:
        return start and {p: {m: float(start[p][m]) for m in ("eval", "train")} for p in ("features", "logits")}
    except (KeyError, TypeError, ValueError) as error:
        raise SalpipeError(f"{path}: damaged; train the run again in another folder") from error
