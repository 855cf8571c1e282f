"""A real SLURM job array: one task is requeued while it writes, and the manifest is complete."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.generation.examples import COMMAND, flat, kept, run

RIG = Path(__file__).parents[1] / "slurm.sh"
TASKS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))),
        reason="needs root and SLURM (Debian's slurmctld, slurmd, slurm-client, munge): see CONTRIBUTING.md",
    ),
]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that runs a command of SLURM on a cluster of two nodes and returns its output."""
    folder = tmp_path / "slurm"
    subprocess.run([RIG, "start", folder], check=True)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        yield lambda *arguments: subprocess.run(
            list(map(str, arguments)), check=True, capture_output=True, text=True
        ).stdout.strip()
    finally:
        subprocess.run([RIG, "stop", folder], check=True)


def waited(condition: Callable[[], object], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_an_array_whose_task_is_requeued_is_one_run(slurm: Callable[..., str], tmp_path: Path) -> None:
    images, shards = flat(tmp_path / "images", 180), tmp_path / "shards"
    command = [sys.executable, "-m", "saliency_pipeline.cli", "generate", images, "-o", shards, *COMMAND]
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --array=1-{TASKS}\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
        f"#SBATCH --output={tmp_path}/task-%a.log\n{' '.join(map(str, command))} --shard-size 1 --shards auto --quiet\n"
    )
    job = slurm("sbatch", "--parsable", script)
    own = [shards / "receipts" / f"shard-{number:05d}.json" for number in range(1, 180, TASKS)]
    assert waited(lambda: any(map(Path.exists, own)), 120), (tmp_path / "task-2.log").read_text()
    slurm("scontrol", "requeue", f"{job}_2")
    assert sum(map(Path.exists, own)) < len(own)
    assert waited(lambda: not slurm("squeue", "-h", "-j", job), 180), slurm("squeue")
    assert "Restarts=1" in slurm("scontrol", "show", "job", f"{job}_2")
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("task-*.log")))
    assert logs.count("; complete") >= 1, logs
    run(images, tmp_path / "whole", shard_size=1)
    assert kept(shards) == kept(tmp_path / "whole")
