"""How long a comparison will take, from a few measured steps of every arm; and the precision of its runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from saliency_pipeline.comparison.plan import Plan, Task
from saliency_pipeline.devices import find_device
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.order import epoch_batches, epoch_order
from saliency_pipeline.training.parts import Parts, assemble, chosen_method, datasets, make_optimizer, network_spec
from saliency_pipeline.training.precision import autocast, choose_precision

STEPS = 3
BEGIN = 4.0
"""Seconds that a run takes to load its network and to write what it leaves, roughly."""


@dataclass(frozen=True)
class Estimate:
    """What a comparison takes.

    Attributes:
        runs: training runs.
        steps: of all of them.
        seconds: duration with so many jobs, roughly: runs beside one another slow one another down.
        seconds_per_step: measured, by arm.
    """

    runs: int
    steps: int
    seconds: float
    seconds_per_step: dict[str, float]


def estimate(plan: Plan, tasks: Sequence[Task], jobs: int) -> Estimate:
    """Measure a few steps of every arm, with the threads of a run, and count.

    Raises:
        SalpipeError: an arm that cannot be trained on these shards.
    """
    firsts = {task.arm: task for task in reversed(tasks)}
    measured, before = {}, torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        for arm, task in firsts.items():
            config = task.config
            if config.init == "full":
                # what it begins with may not be trained yet, and weights do not change how long a step takes
                config = replace(config, init="scratch", start=None)
            measured[arm] = _measure(config, ShardFolder(task.shards))
    finally:
        torch.set_num_threads(before)
    steps, seconds = 0, 0.0
    for task in tasks:
        step, answer = measured[task.arm]
        train, validation = _images(task)
        batches = -(-train // task.config.batch_size)
        steps += task.config.epochs * batches
        seconds += BEGIN + task.config.epochs * (batches * step + validation * answer)
    return Estimate(len(tasks), steps, seconds / max(1, jobs), {arm: found[0] for arm, found in measured.items()})


def choose_shared_precision(config: TrainConfig, pairs: ShardFolder, threads: int) -> str:
    """The precision of all runs, decided once on the first batch of one of them: arms must not differ in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = assemble(config, pairs, find_device(config.device))
        return choose_precision(parts.network, parts.spec, parts.inputs(_first_batch(parts)))
    finally:
        torch.set_num_threads(before)


def _measure(config: TrainConfig, pairs: ShardFolder) -> tuple[float, float]:
    """Seconds a training step and seconds a validation image."""
    parts = assemble(config, pairs, find_device(config.device))
    optimizer = make_optimizer(parts.config, parts.network)
    batch = _first_batch(parts)

    def step() -> None:
        images, maps, labels = parts.inputs(batch)
        with autocast(config.precision, images.device):
            logits = parts.network(images, maps)
        optimizer.zero_grad()
        functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(logits.detach().sum())

    def answer() -> None:
        images, maps, _ = parts.inputs(batch)
        with torch.inference_mode(), autocast(config.precision, images.device):
            float(parts.network(images, maps).float().sum())

    trained = _best(step)
    parts.network.eval()
    return trained, _best(answer) / len(batch.labels)


def _best(work: Any) -> float:
    """The shortest of some times, after one that is not counted."""
    work()
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def _first_batch(parts: Parts) -> Any:
    config = parts.config
    order = epoch_order(len(parts.train.dataset), config.run_seed, 0)
    return parts.train.prepare(epoch_batches(order, config.batch_size)[0], 0)


def _images(task: Task) -> tuple[int, int]:
    """Training and validation images of a run."""
    pairs = ShardFolder(task.shards)
    config = replace(task.config, method=chosen_method(task.config, pairs))
    train, validation, _ = datasets(config, network_spec(config, pairs), pairs)
    return len(train.dataset), len(validation.dataset)
