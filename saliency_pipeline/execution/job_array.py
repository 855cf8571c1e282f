"""The part of a run that belongs to one task of a SLURM job array."""

from __future__ import annotations

from collections.abc import Mapping

from saliency_pipeline.errors import OptionError


def slurm_part(environment: Mapping[str, str]) -> tuple[int, int]:
    """The (I, N) of this task of a job array, from SLURM's variables: the I-th of N.

    A task that is requeued has the same part. `sbatch --array=5` alone is an array of one task, which does everything
    that is left.

    Raises:
        OptionError: this is no task of a job array, or one of an array with gaps, whose tasks SLURM does not count.

    >>> task = {"ID": "4", "MIN": "0", "MAX": "6", "COUNT": "4", "STEP": "2"}
    >>> slurm_part({f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()})
    (3, 4)
    """
    names = ("ID", "MIN", "MAX", "COUNT")
    try:
        number, first, last, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in names)
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    except (KeyError, ValueError):
        raise OptionError(
            "--shards auto: this is no task of a SLURM job array; use --shards I/N, or sbatch --array"
        ) from None
    if step < 1 or first + (count - 1) * step != last or (number - first) % step or not first <= number <= last:
        raise OptionError(
            "--shards auto: the job array has gaps; use sbatch --array=0-15 or the like, so that tasks can be counted"
        )
    return (number - first) // step + 1, count
