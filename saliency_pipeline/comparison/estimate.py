"""Estimated duration of a comparison from a few measured steps of every arm, and the shared precision of its runs."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from saliency_pipeline.comparison.costs import Spent
from saliency_pipeline.comparison.plan import Plan, Task
from saliency_pipeline.comparison.self_maps import without_baseline
from saliency_pipeline.devices import find_device, limited_threads
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import SELF, TrainConfig
from saliency_pipeline.training.data.order import epoch_batches, epoch_order
from saliency_pipeline.training.loss import Loss
from saliency_pipeline.training.precision import autocast, choose_precision
from saliency_pipeline.training.setup import Setup, chosen_method, datasets, make_optimizer, network_spec, set_up
from saliency_pipeline.training.validation import validated_epochs

STEPS = 3
BEGIN = 4.0
"""Approximate seconds to load the network of a run and to write its files."""
SELF_MAPS = 3.0
"""Approximate cost of the map that a baseline makes of an image, in inferences: a pass and its gradient."""


@dataclass(frozen=True)
class Estimate:
    """Estimated size and duration of a comparison.

    Attributes:
        runs: training runs.
        steps: of all of them.
        seconds: approximate duration; concurrent runs slow one another down.
        seconds_per_step: measured, by arm, and by `pretraining of ARM`.
        parts: by purpose of the runs: `training`, `pretraining`, `tuning`.
    """

    runs: int
    steps: int
    seconds: float
    seconds_per_step: dict[str, float]
    parts: dict[str, Spent]


def estimate(plan: Plan, tasks: Sequence[Task], jobs: int, progress: Progress | None = None) -> Estimate:
    """Measure a few steps of every arm, with the threads of a run, and count.

    Raises:
        SalpipeError: an arm that cannot be trained on these shards.
    """
    firsts = {task.label: task for task in reversed(tasks)}
    measured, progress = {}, progress or Progress()
    progress.start(len(firsts), "arm", "measuring the time per step")
    with limited_threads(plan.threads):
        for name, task in firsts.items():
            config = without_baseline(task.config)
            if config.init == "full":
                # its start may not be trained yet, and weights do not change the time per step
                config = replace(config, init="scratch", start=None)
            measured[name] = _measure(config, ShardFolder(task.shards))
            progress.advance(1)
    progress.stop()
    steps, seconds, runs = 0, defaultdict[str, float](float), Counter(task.purpose for task in tasks)
    explained: dict[tuple[str | None, str | None], int] = {}
    for task in tasks:
        step, inference = measured[task.label]
        train, validation = _images(task)
        if task.config.maps == SELF:
            # those of a baseline are made once, by the first run that reads them
            own = task.config.from_baseline, task.config.method
            read, made = train + validation * task.config.maps_at_test, explained.get(own, 0)
            seconds[task.purpose] += SELF_MAPS * inference * max(0, read - made)
            explained[own] = max(read, made)
        validation *= task.config.map_use.views if task.config.map_use else 1
        batches = -(-train // task.config.batch_size)
        steps += task.config.epochs * batches
        validations = len(validated_epochs(task.config.validate, task.config.epochs))
        seconds[task.purpose] += BEGIN + task.config.epochs * batches * step + validations * validation * inference
    parts = {purpose: Spent(count, seconds[purpose] / max(1, jobs)) for purpose, count in runs.items()}
    total = sum(part.seconds for part in parts.values())
    return Estimate(len(tasks), steps, total, {name: times[0] for name, times in measured.items()}, parts)


def choose_shared_precision(configs: Sequence[TrainConfig], pairs: ShardFolder, threads: int) -> str:
    """Choose one precision for all runs: bf16 only if it suits every arm, because arms must not differ in it.

    The first batch of one run of every arm decides whether bf16 is faster and keeps its gradient.
    """
    with limited_threads(threads):
        for config in dict.fromkeys(configs):
            setup = set_up(without_baseline(config), pairs, find_device(config.device))
            if choose_precision(setup.network, setup.spec, setup.inputs(_first_batch(setup))) != "bf16":
                return "fp32"
    return "bf16" if configs else "fp32"


def _measure(config: TrainConfig, pairs: ShardFolder) -> tuple[float, float]:
    """Seconds per training step and seconds per validation image."""
    setup = set_up(config, pairs, find_device(config.device))
    optimizer, criterion = (
        make_optimizer(setup.config, setup.network),
        Loss(config, setup.network, None, setup.supervised),
    )
    batch = _first_batch(setup)

    def step() -> None:
        images, maps, labels = setup.inputs(batch)
        with autocast(config.precision, images.device), criterion.capturing():
            logits = setup.network(images, maps)
        optimizer.zero_grad()
        criterion(logits.float(), batch, labels, maps).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(logits.detach().sum())

    def infer() -> None:
        images, maps, _ = setup.inputs(batch)
        with torch.inference_mode(), autocast(config.precision, images.device):
            float(setup.network(images, maps).float().sum())

    trained = _best(step)
    setup.network.eval()
    return trained, _best(infer) / len(batch.labels)


def _best(work: Any) -> float:
    """Minimum time of several calls, after a warm-up."""
    work()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _first_batch(setup: Setup) -> Any:
    config = setup.config
    order = epoch_order(len(setup.train.dataset), config.run_seed, 0)
    return setup.train.prepare(epoch_batches(order, config.batch_size)[0], 0)


def _images(task: Task) -> tuple[int, int]:
    """Training and validation images of a run."""
    pairs = ShardFolder(task.shards)
    config = without_baseline(task.config)
    config = replace(config, method=chosen_method(config, pairs))
    train, validation, _ = datasets(config, network_spec(config, pairs), pairs)
    return len(train.dataset), len(validation.dataset)
