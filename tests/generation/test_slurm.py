"""A real SLURM job array: one task is requeued while it writes, and the manifest is complete."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.generation.examples import COMMAND, flat, kept, run
from tests.slurm import needs_slurm, waited

TASKS = 3


@pytest.mark.slow
@needs_slurm
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
