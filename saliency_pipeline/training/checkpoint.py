"""Checkpoints of a training run: weights, optimizer state and progress in one file, and the metrics of an epoch.

One file, because a crash between two would leave weights and state that do not belong together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.matching import compare
from saliency_pipeline.models.source.weights import read_state
from saliency_pipeline.models.trained.trained import open_tensors, write_tensors
from saliency_pipeline.text import one_line

LAST = "last.safetensors"
FORMAT = "salpipe-checkpoint"
TOP5 = "validation_top5"


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch; the fields are the columns of `metrics.csv`.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: mean training loss over the images of the epoch, while the weights changed.
        train_top1: training accuracy, likewise.
        validation_loss: mean cross-entropy of the validation images; this and the other validation metrics are None for
            an epoch that was not validated.
        validation_top1: validation accuracy.
        validation_top5: top-5 accuracy; None with five classes or fewer.
        validation_macro_f1: unweighted mean F1 over the classes.
        lr: learning rate of the last step.
        seconds: duration of training and validation.
        images_per_second: training images per second.
        wait_share: share of the training time spent waiting for data.
    """

    epoch: int
    train_loss: float
    train_top1: float
    validation_loss: float | None
    validation_top1: float | None
    validation_top5: float | None
    validation_macro_f1: float | None
    lr: float
    seconds: float
    images_per_second: float
    wait_share: float


COLUMNS = tuple(column.name for column in fields(EpochMetrics))
VALIDATED = tuple(name for name in COLUMNS if name.startswith("validation_"))
"""Columns that are empty for an epoch that was not validated."""


@dataclass
class State:
    """Progress of a run, which continues with step `step` of epoch `epoch`, both counted from 0.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps of the current epoch.
        loss_sum: sum of the training losses over the images of those steps.
        correct: number of those images that were classified correctly.
        seen: number of those images.
        seconds: duration of those steps.
        waited: seconds of it that the loop waited for data.
        rows: metrics of every finished epoch.
        best: metrics of the best validated epoch so far; None before the first.
        stale: validated epochs since the best one.
        elapsed: seconds of all finished epochs.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    rows: list[EpochMetrics] = field(default_factory=list)
    best: EpochMetrics | None = None
    stale: int = 0
    elapsed: float = 0.0

    @property
    def last_validated(self) -> int:
        """Number of the last validated epoch; 0 before the first."""
        return max((row.epoch for row in self.rows if row.validation_top1 is not None), default=0)

    def finish_epoch(self, row: EpochMetrics) -> bool:
        """Keep the metrics of an epoch and reset the sums for the next one; return True if it is the best so far."""
        top1, best = row.validation_top1, self.best.validation_top1 if self.best else None
        better = top1 is not None and (best is None or top1 > best)
        if top1 is not None:
            self.best, self.stale = (row, 0) if better else (self.best, self.stale + 1)
        self.rows.append(row)
        self.elapsed += row.seconds
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.correct, self.seen, self.seconds, self.waited = 0.0, 0, 0, 0.0, 0.0
        return better


def save_last(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write the checkpoint, atomically.

    Raises:
        SalpipeError: the disk is full or cannot be written; the previous checkpoint stays.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
    write_tensors(folder / LAST, tensors, FORMAT, {"state": asdict(state)})


def load_last(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load the checkpoint into the network and the optimizer.

    Returns:
        The state of the run; a new one without a checkpoint.

    Raises:
        SalpipeError: the checkpoint is damaged or of another network.
    """
    path = folder / LAST
    if not path.exists():
        return State()
    stored, description = open_tensors(path, FORMAT)
    prefix = "network."
    if mismatch := compare(network, {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}):
        raise SalpipeError(f"{path}: damaged, or of another network: {mismatch}; remove it to start the run again")
    tensors = read_state(path, stored)
    slots: dict[int, dict[str, Tensor]] = {}
    weights = {}
    try:
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "network":
                weights[rest] = value
            else:
                number, _, slot = rest.partition(".")
                slots.setdefault(int(number), {})[slot] = value
        network.load_state_dict(weights)
        state = _restored(description["state"])
        described = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, parameter in enumerate(parameters):
            for slot, value in slots.get(place, {}).items():
                if value.shape == parameter.shape:
                    # in the parameter's strides, as before: kernels may round differently with others
                    slots[place][slot] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.load_state_dict({"state": slots, "param_groups": described["param_groups"]})
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SalpipeError(f"{path}: damaged ({one_line(error)}); remove it to start the run again") from error
    return state


def _restored(state: dict[str, Any]) -> State:
    """The state that a file describes; its types and ranges may have been chosen by anyone."""
    counts = [state[name] for name in ("epoch", "step", "correct", "seen", "stale")]
    amounts = [state[name] for name in ("loss_sum", "seconds", "waited", "elapsed")]
    rows = [*state["rows"], *([] if state["best"] is None else [state["best"]])]
    validated = [row for row in rows if row["validation_top1"] is not None]
    # of the others all validation metrics are undefined; of validated epochs top-5 accuracy may be
    values = [value for row in validated for name, value in row.items() if name != TOP5 or value is not None]
    values += [row[name] for row in rows for name in COLUMNS if name not in VALIDATED]
    if not (
        all(type(count) is int and 0 <= count < 1 << 53 for count in counts)
        and all(isinstance(value, int | float) for value in (*amounts, *values))
        and len(state["rows"]) == state["epoch"]
        and all(row[name] is None for row in rows if row not in validated for name in VALIDATED)
        and (state["best"] in validated if validated else state["best"] is None and not state["stale"])
        and (state["step"] > 0) == (state["seen"] > 0)
    ):
        raise ValueError("its state contradicts itself")
    best = None if state["best"] is None else EpochMetrics(**state["best"])
    return State(**state | {"rows": [EpochMetrics(**row) for row in state["rows"]], "best": best})
