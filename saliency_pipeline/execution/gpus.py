"""All GPUs of a machine: one worker process for each."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.locks import try_lock

ALL = "cuda:all"
"""Name of all GPUs, where one device can be named."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_taken: list[int] = []


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        SalpipeError: there is none.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise SalpipeError(f"--device {ALL}: no GPU here; use --device cpu")
    names = os.environ.get(_VISIBLE, "")
    # names after an invalid one are ignored, as CUDA does
    return tuple(names.split(",")[:count]) if names else tuple(map(str, range(count)))


def take_gpu(gpus: tuple[str, ...], folder: Path) -> None:
    """Let this worker process see only one of the GPUs, which no other living worker has; before it uses CUDA.

    A process holds a lock on the file of its GPU as long as it lives, so that a worker that replaces a dead one takes
    the GPU of that.

    Args:
        gpus: names of the GPUs.
        folder: folder of the locks on a local disk, the same for all workers of a run.

    Raises:
        SalpipeError: other workers have them all.
    """
    if _taken:
        return
    for number, gpu in enumerate(gpus):
        file = os.open(folder / f"gpu-{number}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):
            try_lock(file)
            _taken.append(file)
            os.environ[_VISIBLE] = gpu
            return
        os.close(file)
    raise SalpipeError(f"--device {ALL}: more worker processes than the {len(gpus)} GPUs")
