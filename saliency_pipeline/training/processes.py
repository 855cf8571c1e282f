"""The processes that train together, which torchrun started; variables that anything else left count for nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saliency_pipeline.errors import SalpipeError

STARTED = "TORCHELASTIC_RUN_ID"
"""The variable that torchrun alone sets; RANK and WORLD_SIZE are set by job schedulers and operators as well."""

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local: how many of them run on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 1


def training_processes() -> Processes:
    """What torchrun says of this process; one that it did not start trains alone.

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


@contextmanager
def launchers_hidden() -> Iterator[None]:
    """Within the block a process that trains alone has no variable that Lightning would take for a launcher's."""
    alone = training_processes().world == 1
    hidden = {name: value for name, value in os.environ.items() if name.startswith("LT_") or (alone and name in _RANKS)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _left_over(values: dict[str, str]) -> SalpipeError:
    shown = " ".join(f"{name}={value}" for name, value in values.items())
    return SalpipeError(
        f"{shown}: not the variables of a torchrun that is running; start with torchrun, or unset {STARTED} to train "
        "in one process"
    )
