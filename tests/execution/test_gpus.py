"""One worker process per GPU, without a GPU."""

import os
from pathlib import Path

import pytest
import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution import gpus
from saliency_pipeline.execution.gpus import take_gpu, visible_gpus

GPUS = ("GPU-a", "3")


def seen_by_a_new_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[int]]:
    """The GPU that a process sees, and what it holds as long as it lives; a lock is that of an opened file."""
    held: list[int] = []
    monkeypatch.setattr(gpus, "_taken", held)
    for _ in range(2):
        take_gpu(GPUS, folder)
    return os.environ["CUDA_VISIBLE_DEVICES"], held


def test_every_worker_sees_a_gpu_of_its_own_and_the_next_takes_that_of_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,3")
    first, held = seen_by_a_new_worker(tmp_path, monkeypatch)
    second, _ = seen_by_a_new_worker(tmp_path, monkeypatch)
    assert (first, second) == GPUS
    with pytest.raises(SalpipeError, match="more worker processes than the 2 GPUs"):
        seen_by_a_new_worker(tmp_path, monkeypatch)
    for file in held:
        os.close(file)
    assert seen_by_a_new_worker(tmp_path, monkeypatch)[0] == first


def test_the_gpus_are_those_that_cuda_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a,7")
    assert visible_gpus() == ("5", "GPU-a")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SalpipeError, match=r"^--device cuda:all: no GPU here; use --device cpu$"):
        visible_gpus()
