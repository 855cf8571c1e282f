"""Files of a training run besides its weights: metrics, predictions, curves, summary, provenance."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from saliency_pipeline.devices import device_name
from saliency_pipeline.files import write_atomically
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.checkpoint import COLUMNS, EpochMetrics
from saliency_pipeline.training.curves import plot_curves
from saliency_pipeline.workers import usable_cores

METRICS, TABLE, VALIDATION, CURVES, SUMMARY, PROVENANCE = (
    "metrics.jsonl",
    "metrics.csv",
    "validation.csv",
    "curves.png",
    "summary.json",
    "provenance.json",
)
_LIBRARIES = ("saliency-pipeline", "torch", "torchvision", "timm", "numpy", "lightning-fabric", "h5py", "safetensors")


def write_metrics(folder: Path, rows: Sequence[EpochMetrics]) -> None:
    """Write the metrics of all epochs as JSON lines and as CSV; each file is written whole, so no line is torn.

    A metric that is not defined, as top-5 accuracy of five classes, is null in the former and empty in the latter.
    """
    write_atomically(folder / METRICS, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    table = [["" if value is None else str(value) for value in astuple(row)] for row in rows]
    write_table(folder / TABLE, COLUMNS, table)


def write_predictions(
    folder: Path,
    keys: Sequence[str],
    labels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """Write the predictions of the last epoch on the validation images: key, label, predicted class and its score."""
    scores = softmax(logits.astype(np.float64), axis=1)
    rows = zip(keys, labels.tolist(), scores.argmax(1).tolist(), scores.max(1).tolist(), strict=True)
    write_table(
        folder / VALIDATION,
        ("key", "label", "predicted", "score"),
        [(key, classes[label], classes[predicted], score) for key, label, predicted, score in rows],
    )


def write_curves(folder: Path, rows: Sequence[EpochMetrics], title: str) -> None:
    """Plot the metrics of all epochs."""
    plot_curves([asdict(row) for row in rows], folder / CURVES, title)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON document with sorted keys."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def environment(device: torch.device, world: int) -> dict[str, Any]:
    """Versions, hardware and number of processes of a run."""
    return {
        "versions": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(device),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "processes": world,
    }
