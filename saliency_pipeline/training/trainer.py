"""One epoch of training and of validation, step by step. The loop over the epochs: `run.py`."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from saliency_pipeline.errors import DivergedError
from saliency_pipeline.models.probe import probe_frames, probe_size
from saliency_pipeline.models.trained.folded import FoldedNetwork, fold
from saliency_pipeline.models.trained.freeze import training_mode
from saliency_pipeline.progress import Progress
from saliency_pipeline.statistics import metrics
from saliency_pipeline.training.batchnorm import synchronize
from saliency_pipeline.training.checkpoint import VALIDATED, EpochMetrics, load_last, save_last
from saliency_pipeline.training.data.batches import Batch
from saliency_pipeline.training.data.kept import KeptBatches
from saliency_pipeline.training.data.order import epoch_batches
from saliency_pipeline.training.loader import PairLoader
from saliency_pipeline.training.loss import Loss
from saliency_pipeline.training.precision import autocast
from saliency_pipeline.training.processes import ConnectedProcesses
from saliency_pipeline.training.schedule import learning_rate
from saliency_pipeline.training.setup import Setup, class_weights, make_optimizer
from saliency_pipeline.training.shuffle import Shuffle
from saliency_pipeline.training.validation import validated_epochs

Logits = npt.NDArray[np.float32]

CPU_BATCH, GPU_BATCH = 16, 64
"""Validation images per batch. More are slower on a CPU, whose caches no longer hold what a layer writes."""


class Trainer:
    """Trains the network of a set-up and keeps its checkpoint.

    `shuffle` is how the training images are shuffled; see `shuffle.choose_shuffle`.

    Attributes:
        network: the network, whose tensors are the checkpoint's.
        state: progress of the run, from the checkpoint where there is one.
    """

    def __init__(
        self,
        setup: Setup,
        processes: ConnectedProcesses,
        folder: Path,
        *,
        shuffle: Shuffle,
        save_seconds: float,
        progress: Progress,
    ) -> None:
        self.config, self.inputs, self.train, self.validation = (
            setup.config,
            setup.inputs,
            setup.train,
            setup.validation,
        )
        self.frozen, self.processes = setup.frozen, processes
        self.folder, self.save_seconds, self.progress = folder, save_seconds, progress
        self.network = setup.network if processes.world == 1 else synchronize(setup.network, processes.device)
        weights = class_weights(setup.config, setup.train, len(setup.spec.classes), processes.device)
        self.loss = Loss(setup.config, self.network, weights, setup.supervised)
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(setup.config, self.network)
        self.model, self.optimizer = processes.fabric.setup(self.network, optimizer)
        self.kept = KeptBatches(self.validation)
        # with the initial weights, so that a resumed run decides alike
        self.folded = fold_for(setup) if processes.world == 1 and processes.device.type == "cpu" else None
        self.state = load_last(folder, self.network, self.optimizer.optimizer)
        place = {"rank": processes.rank, "world": processes.world}
        config = setup.config
        self.loader = PairLoader(self.train, config.batch_size, seed=config.run_seed, shuffle=shuffle, **place)

    def save(self) -> None:
        """Write the checkpoint."""
        if self.processes.leading:
            save_last(self.folder, self.network, self.optimizer.optimizer, self.state)

    def train_epoch(self) -> None:
        """Take the remaining steps of the current epoch, with a checkpoint every `save_seconds`."""
        config, state, steps = self.config, self.state, len(self.loader)
        self.loader.epoch, self.loader.step = state.epoch, state.step
        training_mode(self.network, self.frozen)
        self.progress.start(steps, "step", f"epoch {state.epoch + 1}/{config.epochs}")
        self.progress.advance(state.step)
        saved = begun = time.perf_counter()
        self.train.waited = 0.0
        for indices, batch in self.loader.steps():
            seed_step(config.run_seed, state.epoch, state.step, self.processes.rank)
            self.set_rate(state.epoch * steps + state.step, steps)
            loss, correct = self.step(batch, indices)
            state.step += 1
            state.loss_sum += loss
            state.correct += correct
            state.seen += len(indices)
            self.progress.advance(1)
            now = time.perf_counter()
            if now - saved >= self.save_seconds and state.step < steps:
                state.seconds, begun = state.seconds + now - begun, now
                state.waited, self.train.waited = state.waited + self.train.waited, 0.0
                self.save()
                saved = time.perf_counter()
        state.seconds += time.perf_counter() - begun
        state.waited += self.train.waited
        self.progress.stop()

    def step(self, batch: Batch, indices: npt.NDArray[np.integer]) -> tuple[float, int]:
        """Take one step of the optimizer; `batch` has the images of this process, `indices` those of all processes.

        Returns:
            Sum of the losses, and number of correct predictions, of all processes.
        """
        dataset = self.train.dataset
        images, maps, targets = self.inputs(batch)
        with autocast(self.config.precision, images.device), self.loss.capturing():
            logits = self.model(images, maps)
        losses = self.loss(logits.float(), batch, targets, maps)
        # the mean over the batch of all processes, whose gradients are averaged
        loss = losses * self.processes.world / self.loss.total_weight(dataset.labels[indices])
        hits = (logits.detach().argmax(1) == targets).sum()
        total, correct = self.processes.sums([float(losses.detach()), float(hits)])
        if not math.isfinite(total):
            raise self.not_finite(dataset.rows[indices])
        self.optimizer.zero_grad(set_to_none=True)
        self.processes.fabric.backward(loss)
        # a gradient that is not finite would spoil the weights, and with them the next checkpoint
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if not math.isfinite(float(norm)):
            raise self.not_finite(dataset.rows[indices])
        if self.config.clip is not None:
            nn.utils.clip_grads_with_norm_(self.trained, self.config.clip, norm)
        self.optimizer.step()
        return total, int(correct)

    def validate(self) -> tuple[EpochMetrics, Logits | None]:
        """Metrics of the epoch that was trained, and its logits of the validation images, float32 (N, classes).

        Where `--validate` leaves this epoch out, there are no logits and the validation metrics are None.
        """
        state, begun, config = self.state, time.perf_counter(), self.config
        logits, scores = None, dict.fromkeys(VALIDATED)
        if state.epoch + 1 in validated_epochs(config.validate, config.epochs):
            logits = self.validation_logits()
            if not np.isfinite(logits).all():
                raise self.not_finite()
            scores = _scores(self.validation.dataset.labels, logits)
        row = EpochMetrics(
            epoch=state.epoch + 1,
            train_loss=state.loss_sum / state.seen,
            train_top1=state.correct / state.seen,
            **scores,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            seconds=state.seconds + time.perf_counter() - begun,
            images_per_second=state.seen / max(state.seconds, 1e-9),
            wait_share=state.waited / max(state.seconds, 1e-9),
        )
        return row, logits

    @torch.inference_mode()
    def validation_logits(self) -> Logits:
        """Logits of all validation images, float32 (N, classes), the same in every process."""
        self.network.eval()
        # BatchNorm stays as it is on a GPU, and where processes synchronize it
        network = self.folded.updated() if self.folded else self.network
        count, processes = len(self.validation.dataset), self.processes
        own = np.arange(count)[processes.rank :: processes.world]
        size = CPU_BATCH if processes.device.type == "cpu" else max(GPU_BATCH, self.config.batch_size)
        parts = epoch_batches(own, size)
        self.progress.start(len(parts), "batch", "validating")
        logits = []
        for batch in self.kept.run(parts):
            images, maps, _ = self.inputs(batch)
            with autocast(self.config.precision, images.device):
                # not the model that Fabric set up: a process with fewer batches must not wait for the others
                logits.append(batch.average(network(images, maps).float()).cpu())
            self.progress.advance(1)
        self.progress.stop()
        return processes.gather_rows(torch.cat(logits).numpy() if logits else np.zeros((0, 0), np.float32), count)

    def set_rate(self, step: int, steps_per_epoch: int) -> None:
        """Set the learning rate of a step, counted over all epochs."""
        c = self.config
        rate = learning_rate(
            step,
            steps_per_epoch,
            c.epochs,
            lr=c.lr,
            schedule=c.schedule,
            warmup_epochs=c.warmup,
            step_epochs=c.step_epochs,
            gamma=c.gamma,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def not_finite(self, positions: npt.NDArray[np.int64] | tuple[()] = ()) -> DivergedError:
        """The error for a loss or gradient that is not finite, on some training images or in validation."""
        state = self.state
        keys = [self.train.dataset.folder[int(position)].key for position in positions[:4]]
        batch = f" (images {', '.join(keys)}{', …' if len(positions) > 4 else ''})" if keys else " (validation)"
        kept = f"; the checkpoint of epoch {state.epoch} is kept" if state.epoch else ""
        return DivergedError(
            f"the loss or its gradient is not finite at epoch {state.epoch + 1}, step {state.step + 1}{batch}; use a "
            f"lower --lr, --clip 1, --warmup or --precision fp32 in another output folder{kept}"
        )


def fold_for(setup: Setup) -> FoldedNetwork | None:
    """The network of a set-up with folded BatchNorm layers, for validation; None where it has none to fold."""
    frames = probe_frames(probe_size(setup.spec.size), 2)
    return fold(setup.network, frames, frames[:, :1].sigmoid())


def _scores(labels: npt.NDArray[np.int64], logits: Logits) -> dict[str, float | None]:
    """The validation metrics, by the names of `VALIDATED`."""
    return {
        "validation_loss": metrics.cross_entropy(labels, logits),
        "validation_top1": metrics.top1(labels, logits),
        "validation_top5": metrics.top5(labels, logits),
        "validation_macro_f1": metrics.macro_f1(labels, logits.argmax(axis=1)),
    }


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed PyTorch for one step, so that dropout depends on the step alone and no random state need be saved."""
    state = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
