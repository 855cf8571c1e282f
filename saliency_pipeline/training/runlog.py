"""What a run leaves beside its weights: metrics of every epoch, curves, a summary, where it came from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from saliency_pipeline import documents
from saliency_pipeline.devices import device_name
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_subfolder
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.curves import plot_curves
from saliency_pipeline.workers import usable_cores

METRICS, TABLE, ANSWERS, CURVES, SUMMARY, PROVENANCE = (
    "metrics.jsonl",
    "metrics.csv",
    "validation.csv",
    "curves.png",
    "summary.json",
    "provenance.json",
)
_LIBRARIES = ("saliency-pipeline", "torch", "torchvision", "timm", "numpy", "lightning-fabric", "h5py", "safetensors")


COLUMNS = (
    "epoch",
    "train_loss",
    "train_top1",
    "validation_loss",
    "validation_top1",
    "validation_top5",
    "validation_macro_f1",
    "lr",
    "seconds",
    "images_per_second",
    "wait_share",
)


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all epochs so far as JSON lines and as CSV, each file written whole: a kill leaves no torn line.

    A metric that is not defined, as top-5 accuracy of five classes, is null in the former and empty in the latter.
    """
    rows = [{name: row[name] for name in COLUMNS} for row in rows]
    write_atomically(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
    write_table(
        folder / TABLE, COLUMNS, [["" if row[name] is None else str(row[name]) for name in COLUMNS] for row in rows]
    )


def write_answers(
    folder: Path,
    keys: Sequence[str],
    labels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """What the network said of every validation image after its last epoch: key, label, predicted class, its score."""
    scores = softmax(logits.astype(np.float64), axis=1)
    rows = zip(keys, labels.tolist(), scores.argmax(1).tolist(), scores.max(1).tolist(), strict=True)
    write_table(
        folder / ANSWERS,
        ("key", "label", "predicted", "score"),
        [(key, classes[label], classes[said], score) for key, label, said, score in rows],
    )


def write_curves(folder: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The curves of all epochs so far."""
    plot_curves(rows, folder / CURVES, title)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON document for people and machines."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document that a run wrote.

    Raises:
        SalpipeError: there is none, or it is damaged.
    """
    try:
        value = documents.read_json(path)
    except FileNotFoundError:
        raise SalpipeError(f"{path}: no such file; give a run that 'salpipe train' made") from None
    except (OSError, ValueError) as error:
        raise SalpipeError(f"{path}: damaged ({error}); run the same 'salpipe train' again") from error
    if not isinstance(value, dict):
        raise SalpipeError(f"{path}: damaged; run the same 'salpipe train' again")
    return value


def environment(device: torch.device, world: int) -> dict[str, Any]:
    """What the run was computed with."""
    return {
        "versions": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(device),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "processes": world,
    }


class TensorBoardWriter:
    """Scalars for TensorBoard, where that is asked for.

    Args:
        folder: the run.
        wanted: whether to write any.

    Raises:
        SalpipeError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, wanted: bool) -> None:
        self.writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise SalpipeError(
                    f"--tensorboard: not usable ({error}); run pip install 'saliency-pipeline[tensorboard]'"
                ) from error
            make_subfolder(folder / "tensorboard")
            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch that are defined."""
        if self.writer is not None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self.writer.add_scalar(name.replace("_", "/", 1), value, int(row["epoch"]))
            self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
