"""Where a run stands, in one file: weights, the optimizer's state, and how far it came.

One file, because a crash between two would leave weights and state that do not belong together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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

Row = dict[str, Any]
"""Metrics of an epoch: numbers by name; `validation_top5` is None with five classes or fewer."""


@dataclass
class State:
    """How far a run came; it goes on with step `step` of epoch `epoch`, both counted from 0.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the next one.
        loss_sum: sum of the training losses over those steps' images.
        correct: how many of them were answered right.
        seen: how many images they had.
        seconds: time they took.
        waited: seconds of it that the loop waited for data.
        rows: metrics of every finished epoch.
        best: row of the best one so far.
        stale: epochs since then.
        elapsed: seconds of all finished epochs.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best: Row | None = None
    stale: int = 0
    elapsed: float = 0.0

    def drop_top5(self) -> None:
        """Set top-5 accuracy to None in all rows: checkpoints of earlier versions hold 1 with five classes or fewer."""
        for row in (*self.rows, *([] if self.best is None else [self.best])):
            row[TOP5] = None

    def next_epoch(self) -> None:
        """Begin the next epoch's sums."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.correct, self.seen, self.seconds, self.waited = 0.0, 0, 0, 0.0, 0.0


def save_last(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write the checkpoint, atomically.

    Raises:
        SalpipeError: the disk is full or cannot be written; the one before stays.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
    write_tensors(folder / LAST, tensors, FORMAT, {"state": asdict(state)})


def load_last(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put a run back to where it stood: the network's and the optimizer's tensors in place.

    Returns:
        The state; a new one where there is no checkpoint yet.

    Raises:
        SalpipeError: the checkpoint is damaged or of another network.
    """
    path = folder / LAST
    if not path.exists():
        return State()
    stored, description = open_tensors(path, FORMAT)
    prefix = "network."
    if mismatch := compare(network, {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}):
        raise SalpipeError(f"{path}: damaged, or of another network: {mismatch}; remove it to begin the run anew")
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
        state = State(**_checked(description["state"]))
        described = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, parameter in enumerate(parameters):
            for slot, value in slots.get(place, {}).items():
                if value.shape == parameter.shape:
                    # in the parameter's strides, as it was: kernels may round otherwise over others
                    slots[place][slot] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.load_state_dict({"state": slots, "param_groups": described["param_groups"]})
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SalpipeError(f"{path}: damaged ({one_line(error)}); remove it to begin the run anew") from error
    return state


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `State`, whose types and ranges a stranger may have chosen."""
    counts = [state[name] for name in ("epoch", "step", "correct", "seen", "stale")]
    amounts = [state[name] for name in ("loss_sum", "seconds", "waited", "elapsed")]
    rows = [*state["rows"], *([] if state["best"] is None else [state["best"]])]
    values = [value for row in rows for name, value in row.items() if name != TOP5 or value is not None]
    if not (
        all(type(count) is int and 0 <= count < 1 << 53 for count in counts)
        and all(isinstance(value, int | float) for value in (*amounts, *values))
        and len(state["rows"]) == state["epoch"]
        and (state["best"] is not None or not state["rows"])
    ):
        raise ValueError("its state contradicts itself")
    return state
