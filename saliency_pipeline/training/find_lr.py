"""Learning-rate range test: the loss while the learning rate rises, before any training (Smith 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import find_device, threads_within_cores
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import make_output
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.curves import plot_lr_find
from saliency_pipeline.training.data.batches import PairDataset
from saliency_pipeline.training.data.groups import find_groups
from saliency_pipeline.training.data.order import epoch_batches
from saliency_pipeline.training.loss import Loss
from saliency_pipeline.training.precision import autocast, choose_precision
from saliency_pipeline.training.processes import training_processes
from saliency_pipeline.training.runlog import write_json
from saliency_pipeline.training.setup import check_names, class_weights, make_optimizer, set_up
from saliency_pipeline.training.shuffle import ANY_ORDER, choose_shuffle
from saliency_pipeline.training.trainer import seed_step

PICTURE, DATA = "lr-find.png", "lr-find.json"
LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
# ratio of the smoothed loss to its lowest value at which the test ends, and decay of the smoothing
DIVERGED, SMOOTHING = 4.0, 0.9
SKIPPED = 10


@dataclass(frozen=True)
class LearningRates:
    """Result of a range test.

    Attributes:
        picture: path of the plot.
        rates: learning rates tried, rising.
        losses: smoothed loss at each rate.
        suggestion: the rate at which the loss falls fastest; None if it never falls.
    """

    picture: str
    rates: list[float]
    losses: list[float]
    suggestion: float | None


@threads_within_cores()
def find_learning_rate(
    shards: Path | str, output: Path | str, config: TrainConfig, *, progress: Progress | None = None
) -> LearningRates:
    """Raise the learning rate with every step until the loss diverges (arXiv 1506.01186, section 3.3).

    Args:
        shards: a folder that `salpipe generate` finished.
        output: folder for `lr-find.png` and `lr-find.json`.
        config: options of the planned training; its `lr`, `schedule` and `epochs` are ignored.
        progress: receives progress.

    Raises:
        SalpipeError: as `train` does.
    """
    folder, progress = Path(output), progress or Progress()
    if training_processes().world > 1:
        raise SalpipeError("--find-lr: runs in one process; start it without torchrun")
    refuse_among_images(folder, shards)
    refuse_shards(folder)
    make_output(folder)
    keep_large_blocks()
    device = find_device(config.device)
    check_names(config)
    pairs = ShardFolder(shards)
    pairs.load(progress)
    setup = set_up(config, pairs, device, find_groups(config, pairs, progress), progress=progress)
    config, train, network = setup.config, setup.train, setup.network
    if config.precision == "auto":
        first = next(_batches(train.dataset, config))
        choice = choose_precision(network, setup.spec, setup.inputs(train.prepare(first, 0)))
        config = replace(config, precision=choice)
    criterion = Loss(config, network, class_weights(config, train, len(setup.spec.classes), device), setup.supervised)
    optimizer = make_optimizer(config, network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]

    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    progress.start(STEPS, "step", "trying learning rates")
    batches = _batches(train.dataset, config)
    for step, batch in enumerate(train.run([next(batches) for _ in range(STEPS)], 0)):
        seed_step(config.run_seed, 0, step, 0)
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, maps, labels = setup.inputs(batch)
        with autocast(config.precision, device), criterion.capturing():
            logits = network(images, maps)
        loss = criterion(logits.float(), batch, labels, maps) / criterion.total_weight(batch.labels.numpy())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        progress.advance(1)
        value = float(loss.detach())
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        smooth = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) and not rates:
            raise SalpipeError("the loss is not finite at the first step; use --precision fp32, or check the maps")
        if not math.isfinite(smooth) or (losses and smooth > DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    progress.stop()
    suggestion = steepest(rates, losses)
    plot_lr_find(rates, losses, suggestion, folder / PICTURE)
    write_json(folder / DATA, {"rates": rates, "losses": losses, "suggestion": suggestion})
    return LearningRates(str(folder / PICTURE), rates, losses, suggestion)


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate, before the lowest loss, at which the loss falls fastest over the logarithm of the rate.

    The first steps are skipped: their average is of few losses and falls or rises by chance.
    """
    lowest = int(np.argmin(losses)) if losses else 0
    if lowest < SKIPPED + 2:
        return None
    slopes = np.gradient(np.array(losses[: lowest + 1]), np.log(rates[: lowest + 1]))[SKIPPED:]
    place = int(np.argmin(slopes))
    return float(rates[SKIPPED + place]) if slopes[place] < 0 else None


def _batches(dataset: PairDataset, config: TrainConfig) -> Iterator[npt.NDArray[np.integer]]:
    """Batches of consecutive epochs."""
    # the small blocks of `auto` are for whole epochs from disk, and this run has a hundred steps
    shuffle = ANY_ORDER if config.shuffle == "auto" else choose_shuffle(dataset.folder, len(dataset), config)
    for epoch in count():
        yield from epoch_batches(shuffle.order(dataset, config.run_seed, epoch), config.batch_size)
