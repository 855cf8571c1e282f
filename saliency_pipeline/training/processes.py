"""The processes that train together: rank, world size and exchange. Only torchrun's own variables count."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

STARTED = "TORCHELASTIC_RUN_ID"
"""The variable that torchrun alone sets; RANK and WORLD_SIZE are set by job schedulers and operators as well."""

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@dataclass(frozen=True)
class Processes:
    """Position of this process among those that train together.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        local: number of processes on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def leading(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0


class ConnectedProcesses:
    """Processes that exchange values through Fabric; `rank`, `world` and `leading` as in `Processes`.

    Attributes:
        fabric: sets up networks and optimizers.
        device: the device of this process.
    """

    def __init__(self, processes: Processes, fabric: Fabric) -> None:
        self.rank, self.world, self.leading = processes.rank, processes.world, processes.leading
        self.fabric, self.device = fabric, fabric.device

    def from_leading(self, compute: Callable[[], T]) -> T:
        """The value that the leading process computes, in every process."""
        return cast("T", self.fabric.broadcast(compute() if self.leading else None))

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather_rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Interleave the rows of all processes: row i, float32 (count, C), comes from the process of rank i % world."""
        if self.world == 1:
            return own
        parts = [own] * self.world
        distributed.all_gather_object(parts, own)
        rows = np.empty((count, max(part.shape[1] for part in parts)), np.float32)
        for rank, part in enumerate(parts):
            if len(part):
                rows[rank :: self.world] = part
        return rows


def training_processes() -> Processes:
    """Rank and world size as torchrun set them; a process that it did not start trains alone.

    Raises:
        SalpipeError: its variables contradict one another, or the torchrun that left them has ended.
    """
    if STARTED not in os.environ:
        return Processes()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    values = {name: os.environ.get(name, "") for name in names}
    if not all(value.isdecimal() for value in values.values()):
        raise _left_over(values)
    rank, world, local_rank, local, port = (int(value) for value in values.values())
    if not (rank < world and local_rank < local and local <= world and world % local == 0):
        raise _left_over(values)
    if world > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        address = os.environ.get("MASTER_ADDR", "localhost")
        try:
            socket.create_connection((address, port), timeout=30).close()
        except (OSError, OverflowError) as error:
            raise _left_over({"MASTER_ADDR": address, "MASTER_PORT": str(port)}) from error
    return Processes(rank, world, local)


def connect(device: str, progress: Progress) -> ConnectedProcesses:
    """Connect the processes that torchrun started; without torchrun this process is alone.

    Raises:
        SalpipeError: the device is not available, or as in `training_processes`.
    """
    chosen, processes = find_device(device), training_processes()
    alone = processes.world == 1
    if not alone and chosen.index is not None:
        raise SalpipeError(f"--device {device}: torchrun assigns the GPUs; use --device cuda")
    if alone and os.environ.get("WORLD_SIZE", "1") != "1":
        progress.note("WORLD_SIZE is set, but torchrun did not start this process: it trains alone")
    with launchers_hidden():  # they are read on import, too
        import lightning_fabric as lightning
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        # Fabric, left to search, would take any SLURM job for a launcher
        fabric = lightning.Fabric(
            accelerator=chosen.type,
            strategy="auto" if alone else "ddp",
            devices=processes.local if chosen.index is None else [chosen.index],
            num_nodes=processes.world // processes.local,
            plugins=LightningEnvironment() if alone else TorchElasticEnvironment(),
        )
        fabric.launch()
    if processes.world > 1:
        atexit.register(_leave_process_group)
    return ConnectedProcesses(processes, fabric)


@contextmanager
def launchers_hidden() -> Iterator[None]:
    """Context in which a process that trains alone has no variable that Lightning would take for a launcher's."""
    alone = training_processes().world == 1
    hidden = {name: value for name, value in os.environ.items() if name.startswith("LT_") or (alone and name in _RANKS)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _leave_process_group() -> None:
    """End the threads of the process group: a process that exits while they run may be aborted."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _left_over(values: dict[str, str]) -> SalpipeError:
    shown = " ".join(f"{name}={value}" for name, value in values.items())
    return SalpipeError(
        f"{shown}: not the variables of a torchrun that is running; start with torchrun, or unset {STARTED} to train "
        "in one process"
    )
