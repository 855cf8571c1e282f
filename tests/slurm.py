"""A SLURM cluster of two nodes on this machine, which `slurm.sh` starts."""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("slurm.sh")

needs_slurm = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))),
    reason="needs root and SLURM (Debian's slurmctld, slurmd, slurm-client, munge): see CONTRIBUTING.md",
)


@contextmanager
def cluster(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Start the cluster while a block runs; gives a function that runs a command of SLURM and returns its output."""
    with open(RIG) as turn:
        # its ports are fixed, and processes of the suite run side by side
        fcntl.flock(turn, fcntl.LOCK_EX)
        subprocess.run([RIG, "start", folder], check=True)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            yield lambda *arguments: subprocess.run(
                list(map(str, arguments)), check=True, capture_output=True, text=True
            ).stdout.strip()
        finally:
            subprocess.run([RIG, "stop", folder], check=True)


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def waited(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; returns False if it is not met in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
