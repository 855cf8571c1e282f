"""Experiment trackers: the rows of `metrics.jsonl` for TensorBoard, Weights & Biases, MLflow and Trackio."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from saliency_pipeline.documents import read_json
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_subfolder
from saliency_pipeline.text import one_line

RECORD = "trackers.json"
"""File of a run: identifier in each tracker, and the last epoch that was sent there."""

PROJECT = "salpipe"
_PARTS = ("train_", "validation_")
# folders of runs in a comparison
_GROUPS = ("runs", "tuning")


class Tracker(ABC):
    """A run in one tracker. Methods raise whatever the tracker's package raises.

    Attributes:
        package: package that must be installed; the extra of salpipe has the tracker's name.
        repeatable: True if an epoch that is sent twice is there once.
    """

    package: ClassVar[str]
    repeatable: ClassVar[bool] = False

    def new_id(self) -> str:
        """Identifier of a new run."""
        return secrets.token_hex(4)

    @abstractmethod
    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        """Start a run, or continue it after an epoch; 0 for none.

        Args:
            folder: folder of the training run.
            name: name of the run for people.
            id: identifier of the run.
            config: options of the training run.
            epoch: last epoch that the tracker has.

        Returns:
            The identifier, where the tracker chooses it.
        """

    @abstractmethod
    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one epoch."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left, and end the run."""


class TensorBoard(Tracker):
    """Events in the folder `tensorboard` of the run."""

    package = "tensorboard"
    # what earlier files have of the epochs from `purge_step` on is hidden
    repeatable = True

    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        """See `Tracker.open`."""
        from torch.utils.tensorboard import SummaryWriter

        make_subfolder(folder / "tensorboard")
        again = any((folder / "tensorboard").iterdir())
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1 if again else None)
        return id

    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.send`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker.close`."""
        self._writer.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases; its files are in the folder `wandb` of the run."""

    package = "wandb"

    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        """See `Tracker.open`."""
        import wandb

        make_subfolder(folder / "wandb")
        # the output of the command and the code of the current folder are not part of the run
        own = wandb.Settings(console="off", disable_git=True, disable_code=True)
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        self._run: Any = wandb.init(
            project=project, name=name, id=id, resume="allow", dir=str(folder), config=dict(config), settings=own
        )
        return id

    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.send`."""
        self._run.log(dict(values), step=epoch)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


class MLflow(Tracker):
    """A run of MLflow, at MLFLOW_TRACKING_URI or in the file `mlflow.db` of the run."""

    package = "mlflow"
    repeatable = True

    def new_id(self) -> str:
        """Empty: MLflow chooses it."""
        return ""

    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        """See `Tracker.open`."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{os.path.abspath(folder / 'mlflow.db')}"
        self._client: Any = MlflowClient(tracking_uri=place)
        self._continued = bool(id)
        if id:
            self._client.update_run(id, status="RUNNING")
            self._id = id
            return id
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._id = self._client.create_run(number, run_name=name).info.run_id
        options = [Param(option, str(value)) for option, value in config.items()]
        self._client.log_batch(self._id, params=options)
        return self._id

    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.send`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        new = [Metric(name, value, now, epoch) for name, value in values.items() if not self._has(name, epoch)]
        if new:
            self._client.log_batch(self._id, metrics=new)
        self._continued = False

    def close(self) -> None:
        """See `Tracker.close`."""
        self._client.set_terminated(self._id)

    def _has(self, name: str, epoch: int) -> bool:
        """Return whether a killed process has sent a metric; only the first epoch of a continued run can be there."""
        return self._continued and any(m.step == epoch for m in self._client.get_metric_history(self._id, name))


class Trackio(Tracker):
    """A run of Trackio, in its own folder (TRACKIO_DIR)."""

    package = "trackio"

    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        """See `Tracker.open`."""
        import trackio

        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        # a run is continued by its name
        self._run: Any = trackio.init(
            project=project, name=f"{name}-{id}", config=dict(config), resume="allow", embed=False
        )
        return id

    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Tracker.send`."""
        self._run.log(dict(values), step=epoch)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class Tracking:
    """Sends the rows of a run's metrics to trackers, each row once, also if the run is resumed.

    A tracker that fails is closed after one note, and training continues: `metrics.jsonl` has all rows, and what a
    tracker lacks is sent when the run is resumed. A kill at the moment of sending costs Weights & Biases and Trackio
    that one epoch; the others get it then.

    Args:
        names: keys of `TRACKERS`.
        folder: folder of the run.
        config: its options.
        note: receives notes.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, config: Mapping[str, Any], note: Callable[[str], None]
    ) -> None:
        self._folder, self._note = folder, note
        self._config = {name: value for name, value in config.items() if value is not None}
        self._record: dict[str, Any] = _read_record(folder) if names else {}
        self._open: dict[str, Tracker] = {}
        for name in names:
            tracker, entry = TRACKERS[name](), self._record.get(name, {})
            if not isinstance(entry.get("id"), str) or not isinstance(entry.get("epoch"), int):
                entry = {"id": tracker.new_id(), "epoch": 0}
            self._record[name] = entry
            self._guarded(name, partial(self._start, name, tracker))

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send those rows that the trackers do not have; `rows` are all of the run so far, in order."""
        for name in list(self._open):
            self._guarded(name, partial(self._send, name, rows))

    def close(self) -> None:
        """End the run in all trackers."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.close)
            self._open.pop(name, None)

    def _start(self, name: str, tracker: Tracker) -> None:
        entry = self._record[name]
        entry["id"] = tracker.open(self._folder, run_name(self._folder), entry["id"], self._config, entry["epoch"])
        self._open[name] = tracker
        self._save()

    def _send(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        tracker, entry = self._open[name], self._record[name]
        for row in rows:
            if (epoch := row["epoch"]) <= entry["epoch"]:
                continue
            before, entry["epoch"] = entry["epoch"], epoch
            if not tracker.repeatable:
                self._save()
            try:
                tracker.send(epoch, scalars(row))
            except Exception:
                entry["epoch"] = before
                self._save()
                raise
            if tracker.repeatable:
                self._save()

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Call a function; after an error of the tracker's package continue without it. Its output is no result."""
        try:
            with redirect_stdout(sys.stderr):
                call()
        except SalpipeError:
            raise
        except Exception as error:  # whatever a package raises that must not end the training
            self._open.pop(name, None)
            self._note(
                f"--log {name}: failed ({one_line(error, 200)}); training continues, metrics.jsonl has all epochs, "
                "and what is missing is sent when the run is resumed"
            )

    def _save(self) -> None:
        write_atomically(self._folder / RECORD, json.dumps(self._record, indent=2) + "\n")


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers exist and are installed.

    Raises:
        SalpipeError: one does not or is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise OptionError(f"--log {name}: no such tracker; choose from {', '.join(TRACKERS)}")
        if importlib.util.find_spec(TRACKERS[name].package) is None:
            raise SalpipeError(f"--log {name}: not installed; run pip install 'saliency-pipeline[{name}]'")


def run_name(folder: Path) -> str:
    """Name of a run in trackers: that of its folder; of a run of a comparison, with the folders that tell it apart.

    >>> run_name(Path("/data/half")), run_name(Path("/data/comparison/runs/all/half/fold-1"))
    ('half', 'all/half/fold-1')
    """
    parts = Path(os.path.abspath(folder)).parts
    start = max((place for place, part in enumerate(parts[:-1]) if part in _GROUPS), default=len(parts) - 2)
    return "/".join(parts[start + 1 :])


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an epoch that are defined, under their names in trackers.

    >>> scalars({"epoch": 1, "train_loss": 1.5, "validation_top5": None, "lr": 0.1})
    {'train/loss': 1.5, 'lr': 0.1}
    """
    return {
        name.replace("_", "/", 1) if name.startswith(_PARTS) else name: value
        for name, value in row.items()
        if name != "epoch" and value is not None
    }


def _read_record(folder: Path) -> dict[str, Any]:
    """What a run has sent to which tracker; empty where the file is missing or damaged."""
    try:
        stored = read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    entries = stored if isinstance(stored, dict) else {}
    return {name: entry for name, entry in entries.items() if name in TRACKERS and isinstance(entry, dict)}
