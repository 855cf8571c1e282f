"""`salpipe train`: trains a network on a folder of shards into a run folder, resumable at any moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import threads_within_cores
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.trained.trained import BEST, write_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import PULLED, refuse_shards
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets.group_by import anchored
from saliency_pipeline.training.checkpoint import LAST, EpochMetrics, State
from saliency_pipeline.training.config import CONFIG, SELF, TrainConfig, check_same
from saliency_pipeline.training.data.groups import Groups, check_same_groups, divided, find_groups
from saliency_pipeline.training.data.order import epoch_batches
from saliency_pipeline.training.leaks import leak_records, training_images
from saliency_pipeline.training.precision import choose_precision
from saliency_pipeline.training.processes import ConnectedProcesses, connect
from saliency_pipeline.training.runlog import (
    PROVENANCE,
    SUMMARY,
    environment,
    write_curves,
    write_json,
    write_metrics,
    write_predictions,
)
from saliency_pipeline.training.setup import (
    Setup,
    baseline_of,
    check_names,
    chosen_method,
    set_up,
    unmarked_note,
)
from saliency_pipeline.training.shuffle import Shuffle, cache_note, choose_shuffle
from saliency_pipeline.training.start import is_neutral, start_distance
from saliency_pipeline.training.trackers import Tracking, check_trackers
from saliency_pipeline.training.trainer import Trainer
from saliency_pipeline.training.validation import validated_epochs


@dataclass(frozen=True)
class RunReport:
    """Summary of a training run.

    Attributes:
        folder: folder of the run.
        epochs: number of epochs trained.
        stopped_early: True if `--patience` ended the run.
        best: metrics of the best epoch.
        last: metrics of the last epoch.
        seconds: duration of all epochs.
        precision: `fp32` or `bf16`.
        initialization: description of the initial weights.
    """

    folder: str
    epochs: int
    stopped_early: bool
    best: EpochMetrics
    last: EpochMetrics
    seconds: float
    precision: str
    initialization: str


@threads_within_cores()
def train(
    shards: Path | str,
    output: Path | str,
    config: TrainConfig | None = None,
    *,
    log: Sequence[str] = (),
    save_seconds: float = 600.0,
    progress: Progress | None = None,
) -> RunReport:
    """Train a network on pairs of image and saliency map.

    The same call resumes an interrupted run, on a CPU with bit-identical weights. More `epochs` may be given then; any
    other change is refused.

    Args:
        shards: a folder that `salpipe generate` finished.
        output: folder of the run: `config.toml`, `metrics.jsonl`, `metrics.csv`, `validation.csv` (predictions of the
            last epoch on the validation images), `curves.png`, `summary.json`, `provenance.json`, `best.safetensors`
            and `last.safetensors`.
        config: all options; by default the article's.
        log: trackers that also get the metrics of every epoch: `tensorboard`, `wandb`, `mlflow`, `trackio`. They do not
            change the run, and may differ when it is resumed.
        save_seconds: most seconds of training that a kill can cost.
        progress: receives progress and notes.

    Returns:
        The summary, as stored in `summary.json`.

    Raises:
        SalpipeError: an invalid option, unsuitable shards, another run in the folder, a loss that is not finite, or a
            full disk. What was written stays.
    """
    config, folder, progress = config or TrainConfig(), Path(output), progress or Progress()
    check_names(config)
    check_trackers(log)
    keep_large_blocks()
    processes = connect(config.device, progress)
    progress = progress if processes.leading else Progress()
    pairs = ShardFolder(shards)
    pairs.load(progress)
    # so that evaluation finds table and baseline from whatever folder
    baseline = None if config.from_baseline is None else os.path.abspath(config.from_baseline)
    config = replace(config, group_by=anchored(config.group_by), from_baseline=baseline)
    if config.maps == SELF:
        baseline_of(config)
    if config.method is not None:
        # by its full name, with which that of a run to be resumed is compared
        config = replace(config, method=chosen_method(config, pairs))
    refuse_among_images(folder, pairs.path)
    refuse_shards(folder)
    make_output(folder)
    if (folder / PULLED).exists() and not (folder / LAST).exists():
        raise SalpipeError(f"{folder}: was pulled, without the checkpoint {LAST}; choose another output folder")
    with FolderLock(folder, note=progress.note) if processes.leading else nullcontext():
        stored = processes.from_leading(lambda: TrainConfig.read(folder))
        if stored is not None:
            config = _resumed(folder, stored, config, processes, progress)
        elif (folder / LAST).exists():
            raise SalpipeError(f"{folder}: holds a run without its {CONFIG}; choose another output folder")
        return _train(pairs, folder, config, processes, progress, log, save_seconds, new=stored is None)


def _train(
    pairs: ShardFolder,
    folder: Path,
    config: TrainConfig,
    processes: ConnectedProcesses,
    progress: Progress,
    log: Sequence[str],
    save_seconds: float,
    *,
    new: bool,
) -> RunReport:
    """Set up; then for each epoch train, validate, record and save, until the last epoch or patience ends the run."""
    # of one process for all: near duplicates and speeds may be judged differently on other hardware
    groups = processes.from_leading(lambda: find_groups(config, pairs, progress))
    setup = set_up(config, pairs, processes.device, groups, processes.world, progress)
    provenance = _provenance(pairs, setup, groups)
    shuffle = choose_shuffle(pairs, len(setup.train.dataset), config) if new else _same_start(folder, provenance)
    precision = processes.from_leading(lambda: _precision(setup, shuffle, progress))
    setup = replace(setup, config=replace(setup.config, precision=precision))
    config, spec, validation, leading = setup.config, setup.spec, setup.validation.dataset, processes.leading
    if leading:
        if new:
            _record_start(folder, provenance, setup, shuffle, processes, progress)
        else:
            _complete_record(folder, setup)
        _announce(pairs, setup, groups, progress)
        if text := cache_note(pairs, np.concatenate([setup.train.dataset.rows, validation.rows]), shuffle):
            progress.note(text)
    trainer = Trainer(setup, processes, folder, shuffle=shuffle, save_seconds=save_seconds, progress=progress)
    state, network = trainer.state, trainer.network
    _check_epochs(folder, config, state)
    images = training_images(config, pairs, setup.train.dataset.rows) if leading else None
    if leading:
        config.write(folder)
    parts = ("shards", "groups", "initialization", "maps")
    record = {"config": asdict(config), **{name: provenance[name] for name in parts if name in provenance}}
    tracking = Tracking(log if leading else (), folder, asdict(config), progress.note)
    try:
        tracking.update([asdict(row) for row in state.rows])
        with torch.random.fork_rng([processes.device] if processes.device.type == "cuda" else []):
            while state.epoch < config.epochs and not (config.patience and state.stale >= config.patience):
                trainer.train_epoch()
                row, logits = trainer.validate()
                better = state.finish_epoch(row)
                if leading:
                    if logits is not None:
                        keys = pairs.keys_at(validation.rows)
                        write_predictions(folder, keys, validation.labels, logits, pairs.classes)
                    if better:
                        write_trained(folder / BEST, network, spec, record | {"scores": _scores(row)}, images)
                    trainer.save()
                    write_metrics(folder, state.rows)
                    tracking.update([asdict(row) for row in state.rows])
                progress.note(_epoch_note(row, config.epochs, better=better))
    finally:
        progress.stop()
        tracking.close()
        if leading and state.rows:
            # once more: a kill may have come between the last checkpoint and its metrics
            write_metrics(folder, state.rows)
            write_curves(folder, state.rows, f"{config.arch} {config.backbone}")
    assert state.best is not None
    report = RunReport(
        str(folder),
        epochs=state.epoch,
        stopped_early=state.epoch < config.epochs,
        best=state.best,
        last=state.rows[-1],
        seconds=state.elapsed,
        precision=config.precision,
        initialization=str(setup.initialization),
    )
    if leading:
        write_json(folder / SUMMARY, asdict(report) | _sizes(setup))
    return report


def _check_epochs(folder: Path, config: TrainConfig, state: State) -> None:
    """Raise SalpipeError if a run is further than requested, or ends with an epoch that was not validated."""
    if config.epochs < state.epoch:
        raise SalpipeError(f"--epochs {config.epochs}: {folder} has {state.epoch} epochs already; use that or more")
    if config.epochs == state.epoch != state.last_validated:
        raise SalpipeError(
            f"--epochs {config.epochs}: {folder} has that epoch already, not validated (--validate {config.validate}); "
            f"use {state.epoch + 1} or more"
        )


def _sizes(setup: Setup) -> dict[str, Any]:
    """Numbers of classes, of parameters, and of maps that are 0 everywhere, as `summary.json` has them."""
    return {
        "classes": len(setup.spec.classes),
        "parameters": sum(parameter.numel() for parameter in setup.network.parameters()),
        "unmarked": {"train": setup.train.dataset.unmarked, "validation": setup.validation.dataset.unmarked},
    }


def _resumed(
    folder: Path, stored: TrainConfig, config: TrainConfig, processes: ConnectedProcesses, progress: Progress
) -> TrainConfig:
    """The options of a run that is resumed, with the epochs asked for now.

    Raises:
        PlanMismatchError: other options differ.
    """
    check_same(folder, stored, config)
    if stored.device != processes.device.type:
        raise PlanMismatchError(
            f"{folder} holds a run on {stored.device}; give --device {stored.device}, or choose another folder"
        )
    if stored.schedule == "cosine" and stored.epochs != config.epochs:
        progress.note("extending a cosine schedule does not reproduce a run that was started with that many epochs")
    elif stored.epochs < config.epochs and stored.epochs not in validated_epochs(stored.validate, config.epochs):
        progress.note(
            f"epoch {stored.epochs} was validated as the last one, which a run that was started with {config.epochs} "
            "epochs would not do; it may be the best one"
        )
    return replace(stored, epochs=config.epochs)


def _provenance(pairs: ShardFolder, setup: Setup, groups: Groups) -> dict[str, Any]:
    """What a run depends on besides its options, as `provenance.json` and every network hold it."""
    source = setup.train.dataset.source
    return {
        **({} if source is None else {"maps": source.record}),
        "shards": {
            "path": pairs.origin,
            "plan": pairs.header.plan,
            "sha256": pairs.identity,
            "provenance": pairs.provenance,
        },
        "images": {
            "train": len(setup.train.dataset),
            "validation": len(setup.validation.dataset),
            "pool": setup.pool,
        },
        "groups": groups.record(setup.config),
        "initialization": {
            **asdict(setup.initialization),
            "report": str(setup.initialization),
            "sha256": setup.initial_sha256,
            "tensors": setup.initial_tensors,
        },
    }


def _same_start(folder: Path, provenance: dict[str, Any]) -> Shuffle:
    """Compare the start of a resumed run with that recorded; return how it shuffles.

    Raises:
        PlanMismatchError: the shards, groups or initial weights differ.
    """
    stored = read_object(folder / PROVENANCE)
    try:
        if stored["shards"]["sha256"] != provenance["shards"]["sha256"] or stored["images"] != provenance["images"]:
            raise PlanMismatchError(f"{folder} holds a run on other shards; choose another output folder")
        if stored.get("maps") != provenance.get("maps"):
            raise PlanMismatchError(
                f"{folder} holds a run with other maps (the network of --from-baseline, or the boxes, have changed); "
                "choose another output folder"
            )
        check_same_groups(folder, stored["groups"], provenance["groups"])
        if stored["initialization"]["sha256"] != provenance["initialization"]["sha256"]:
            raise PlanMismatchError(
                f"{folder} holds a run with other initial weights (--weights or --from has changed); choose another "
                "output folder"
            )
        return Shuffle.from_json(stored["shuffle"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SalpipeError(f"{folder / PROVENANCE}: damaged; choose another output folder") from error


def _complete_record(folder: Path, setup: Setup) -> None:
    """Add the digests of the initial weights, which have been compared, to a record without them."""
    stored = read_object(folder / PROVENANCE)
    if "tensors" not in stored["initialization"]:
        stored["initialization"]["tensors"] = setup.initial_tensors
        write_json(folder / PROVENANCE, stored)


def _precision(setup: Setup, shuffle: Shuffle, progress: Progress) -> str:
    """The precision of a run, measured for `--precision auto`."""
    config, train = setup.config, setup.train
    if config.precision != "auto":
        return config.precision
    first = epoch_batches(shuffle.order(train.dataset, config.run_seed, 0), config.batch_size)[0]
    progress.note("choosing the precision on the first batch")
    return choose_precision(setup.network, setup.spec, setup.inputs(train.prepare(first, 0)))


def _record_start(
    folder: Path,
    provenance: dict[str, Any],
    setup: Setup,
    shuffle: Shuffle,
    processes: ConnectedProcesses,
    progress: Progress,
) -> None:
    """Write `provenance.json` of a new run, and warn if frozen layers read features that the maps change."""
    config = setup.config
    start = start_distance(setup.network, setup.spec, setup.inputs, setup.validation)
    # the head, which alone reads pooled features, is not frozen
    if config.freeze and config.arch != "pooled" and start is not None and not is_neutral(start):
        progress.note(
            f"--freeze {config.freeze}: --fusion {config.fusion} moves the features by {start['features']['eval']:.0%} "
            "of their norm before training, and frozen layers cannot adapt to that; use --fusion neutral"
        )
    more = {"start": start, "shuffle": shuffle.to_json(), "leaks": leak_records(setup.leaks)}
    surroundings = {"environment": environment(processes.device, processes.world)}
    write_json(folder / PROVENANCE, provenance | more | surroundings)


def _announce(pairs: ShardFolder, setup: Setup, groups: Groups, progress: Progress) -> None:
    """Note what is trained: images, precision, initial weights, divided groups, empty maps and accepted leaks."""
    images, validation = len(setup.train.dataset), len(setup.validation.dataset)
    progress.note(f"{images:,} training images, {validation:,} validation images; {setup.config.precision}")
    progress.note(str(setup.initialization))
    if setup.config.use is not None:
        progress.note(f"maps are used by {setup.config.use}")
    if apart := divided(pairs, groups, folds=bool(setup.config.folds)):
        progress.note(f"{apart:,} images have near duplicates, or others of their group, in another split")
    unmarked = setup.train.dataset.unmarked + setup.validation.dataset.unmarked
    if note := unmarked_note(setup.config, unmarked, images + validation):
        progress.note(note)
    for leak in setup.leaks:
        progress.note(f"accepted with --allow-leaks {leak.name}: {leak.problem}")


def _epoch_note(row: EpochMetrics, epochs: int, *, better: bool) -> str:
    """The progress note on a finished epoch."""
    validation = "not validated"
    if row.validation_top1 is not None:
        validation = f"validation {row.validation_loss:.3f} {row.validation_top1:.1%}{' (best)' if better else ''}"
    return (
        f"epoch {row.epoch}/{epochs}: train {row.train_loss:.3f} {row.train_top1:.1%}, {validation}, "
        f"{row.images_per_second:.1f} images/s"
    )


def _scores(row: EpochMetrics) -> dict[str, Any]:
    """The metrics that are stored with the network of the best epoch."""
    return {name: value for name, value in vars(row).items() if name.startswith("validation_") or name == "epoch"}
