"""The training loop, from top to bottom: epochs, steps, validation, and when to save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from saliency_pipeline.errors import DivergedError
from saliency_pipeline.models.trained.freeze import training_mode
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.checkpoint import Row, State
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import Prefetcher
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.order import epoch_batches, epoch_order, rank_slice
from saliency_pipeline.training.precision import autocast
from saliency_pipeline.training.schedule import learning_rate
from saliency_pipeline.training.scores import score

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Trainer:
    """Everything that a run holds on to; what changes is in `state`, the network and the optimizer.

    Attributes:
        config: resolved options.
        fabric: devices and processes.
        network: the network that is trained.
        model: the same, set up by Fabric.
        optimizer: set up by Fabric.
        inputs: batches to tensors on the device.
        train: the training images.
        validation: the validation images.
        weights: float32 (classes,), of each class in the loss; None where all count alike.
        frozen: names of layers that stay in eval mode.
        shuffle: rows of a block and blocks of a window; None where all rows fit into memory.
        progress: is told how far the run is.
        save: keeps a checkpoint of the state, called now and then within an epoch.
        finished: keeps metrics and checkpoints, called after each epoch with whether it is the best so far
            and its logits of the validation images.
        save_seconds: the longest time between two checkpoints.
    """

    config: TrainConfig
    fabric: Fabric
    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Inputs
    train: Prefetcher
    validation: Prefetcher
    weights: Tensor | None
    frozen: Sequence[str]
    shuffle: tuple[int, int] | None
    progress: Progress
    save: Callable[[State], None]
    finished: Callable[[State, bool, Logits], None]
    save_seconds: float = 600.0

    def fit(self, state: State) -> State:
        """Train from where `state` stands until all epochs are done or none has been better for long enough."""
        patience = self.config.patience
        try:
            while state.epoch < self.config.epochs and not (patience and state.stale >= patience):
                self.train_epoch(state)
                row, logits = self.close_epoch(state)
                better = state.best is None or row["validation_top1"] > state.best["validation_top1"]
                state.best, state.stale = (row, 0) if better else (state.best, state.stale + 1)
                self.finished(state, better, logits)
        finally:
            self.progress.stop()
        return state

    def train_epoch(self, state: State) -> None:
        """The steps of an epoch that are still to be done."""
        config, labels = self.config, self.train.dataset.labels
        order = epoch_order(len(labels), config.run_seed, state.epoch, *(self.shuffle or ()))
        batches = epoch_batches(order, config.batch_size)
        training_mode(self.network, self.frozen)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.progress.start(len(batches), "step", f"epoch {state.epoch + 1}/{config.epochs}")
        self.progress.advance(state.step)
        saved = begun = time.perf_counter()
        self.train.waited = 0.0
        own = [rank_slice(batch, self.fabric.global_rank, self.fabric.world_size) for batch in batches[state.step :]]
        for batch in self.train.run(own, state.epoch):
            everyone = batches[state.step]
            seed_step(config.run_seed, state.epoch, state.step, self.fabric.global_rank)
            self.set_rate(state.epoch * len(batches) + state.step, len(batches))
            images, maps, targets = self.inputs(batch)

            with autocast(config.precision, images.device):
                logits = self.model(images, maps)
            losses = functional.cross_entropy(
                logits.float(), targets, self.weights, reduction="sum", label_smoothing=config.label_smoothing
            )
            # the mean over the batch of all processes, whose gradients are averaged
            loss = losses * self.fabric.world_size / self.total_weight(labels[everyone])
            right = (logits.detach().argmax(1) == targets).sum()
            value, correct = self.summed([float(losses.detach()), float(right)])
            if not math.isfinite(value):
                raise self.not_finite(state, self.train.dataset.rows[everyone])
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            # a gradient that is not finite would spoil the weights, and with them the next checkpoint
            norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
            if not math.isfinite(float(norm)):
                raise self.not_finite(state, self.train.dataset.rows[everyone])
            if config.clip is not None:
                nn.utils.clip_grads_with_norm_(trained, config.clip, norm)
            self.optimizer.step()

            state.step += 1
            state.loss_sum += value
            state.correct += int(correct)
            state.seen += len(everyone)
            self.progress.advance(1)
            now = time.perf_counter()
            if now - saved >= self.save_seconds and state.step < len(batches):
                state.seconds, begun = state.seconds + now - begun, now
                state.waited, self.train.waited = state.waited + self.train.waited, 0.0
                self.save(state)
                saved = time.perf_counter()
        state.seconds += time.perf_counter() - begun
        state.waited += self.train.waited
        self.progress.stop()

    def close_epoch(self, state: State) -> tuple[Row, Logits]:
        """Validate, and turn the sums of an epoch into its row of metrics; also the logits of the validation images."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        begun = time.perf_counter()
        logits = self.evaluate(self.validation, "validating")
        if not np.isfinite(logits).all():
            raise self.not_finite(state, self.train.dataset.rows[:0])
        scores = score(self.validation.dataset.labels, logits)
        seconds = state.seconds + time.perf_counter() - begun
        row: Row = {
            "epoch": state.epoch + 1,
            "train_loss": state.loss_sum / state.seen,
            "train_top1": state.correct / state.seen,
            "validation_loss": scores.loss,
            "validation_top1": scores.top1,
            "validation_top5": scores.top5,
            "validation_macro_f1": scores.macro_f1,
            "lr": rate,
            "seconds": seconds,
            "images_per_second": state.seen / max(state.seconds, 1e-9),
            "wait_share": state.waited / max(state.seconds, 1e-9),
        }
        state.rows.append(row)
        state.elapsed += seconds
        state.next_epoch()
        return row, logits

    @torch.inference_mode()
    def evaluate(self, batches: Prefetcher, what: str) -> Logits:
        """Logits of all images of a data set, float32 (N, classes), the same in every process."""
        self.network.eval()
        count, world = len(batches.dataset), self.fabric.world_size
        parts = epoch_batches(np.arange(count)[self.fabric.global_rank :: world], self.config.batch_size)
        self.progress.start(len(parts), "batch", what)
        found = []
        for batch in batches.run(parts, 0):
            images, maps, _ = self.inputs(batch)
            with autocast(self.config.precision, images.device):
                # not the model that Fabric set up: a process with fewer batches must not wait for the others
                found.append(self.network(images, maps).float().cpu())
            self.progress.advance(1)
        self.progress.stop()
        own = torch.cat(found).numpy() if found else np.zeros((0, 0), np.float32)
        if world == 1:
            return own
        every: list[Logits] = [own] * world
        distributed.all_gather_object(every, own)
        logits = np.empty((count, max(part.shape[1] for part in every)), np.float32)
        for rank, part in enumerate(every):
            if len(part):
                logits[rank::world] = part
        return logits

    def set_rate(self, step: int, steps_per_epoch: int) -> None:
        """The learning rate of a step, counted over all epochs."""
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

    def total_weight(self, labels: npt.NDArray[np.int64]) -> float:
        """Sum of the class weights of some images."""
        return float(len(labels)) if self.weights is None else float(self.weights[torch.from_numpy(labels)].sum())

    def summed(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.fabric.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def not_finite(self, state: State, positions: npt.NDArray[np.int64]) -> DivergedError:
        """The error for a loss, or gradient, that is no number any more."""
        folder = self.train.dataset.folder
        keys = [folder[position].key for position in positions[:4].tolist()]
        batch = f" (images {', '.join(keys)}{', …' if len(positions) > 4 else ''})" if keys else " (validation)"
        kept = f"; the checkpoint of epoch {state.epoch} is kept" if state.epoch else ""
        return DivergedError(
            f"the loss or its gradient is not finite at epoch {state.epoch + 1}, step {state.step + 1}{batch}; use a "
            f"lower --lr, --clip 1, --warmup or --precision fp32 in another output folder{kept}"
        )


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Make what a step draws (dropout) depend on nothing but which step it is: no random state need be saved."""
    state = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
