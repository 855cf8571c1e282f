"""`salpipe train`: from a folder of shards to a run folder, resumable at any moment."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import distributed

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import find_device, threads_within_cores
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.trained.trained import BEST, write_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets.grouping import anchored
from saliency_pipeline.training.batchnorm import synchronize
from saliency_pipeline.training.checkpoint import LAST, Row, State, load_last, save_last
from saliency_pipeline.training.config import CONFIG, TrainConfig, check_same
from saliency_pipeline.training.data.controls import RENEWED
from saliency_pipeline.training.data.groups import Groups, check_same_groups, divided, find_groups
from saliency_pipeline.training.data.order import epoch_batches, epoch_order
from saliency_pipeline.training.leaks import leak_records, training_images
from saliency_pipeline.training.parts import Parts, assemble, check_names, choose_shuffle, class_weights, make_optimizer
from saliency_pipeline.training.precision import choose_precision
from saliency_pipeline.training.processes import launchers_hidden, training_processes
from saliency_pipeline.training.runlog import (
    PROVENANCE,
    SUMMARY,
    TensorBoardWriter,
    environment,
    read_json,
    write_answers,
    write_curves,
    write_json,
    write_metrics,
)
from saliency_pipeline.training.scores import TOP
from saliency_pipeline.training.start import Start, is_neutral, start_distance
from saliency_pipeline.training.trainer import Logits, Trainer

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RunReport:
    """What a run came to.

    Attributes:
        folder: the run.
        epochs: epochs that were trained.
        stopped_early: whether `--patience` ended it.
        best: metrics of the best epoch; `validation_top5` is None with five classes or fewer.
        last: metrics of the last epoch.
        seconds: of all epochs together.
        precision: `fp32` or `bf16`.
        initialization: what the first weights were.
    """

    folder: str
    epochs: int
    stopped_early: bool
    best: Row
    last: Row
    seconds: float
    precision: str
    initialization: str


@threads_within_cores()
def train(
    shards: Path | str,
    output: Path | str,
    config: TrainConfig | None = None,
    *,
    tensorboard: bool = False,
    save_seconds: float = 600.0,
    progress: Progress | None = None,
) -> RunReport:
    """Train a network on pairs of image and map.

    The same call goes on where an interrupted one stopped, and on a CPU ends with the same weights to the bit. More
    `epochs` may be asked for; any other change is refused.

    Args:
        shards: a folder that `salpipe generate` finished.
        output: the run: `config.toml`, `metrics.jsonl`, `metrics.csv`, `validation.csv` (what the last epoch's network
            said of every validation image), `curves.png`, `summary.json`, `provenance.json`, `best.safetensors` and
            `last.safetensors`.
        config: all options; the article's by default.
        tensorboard: also write scalars for TensorBoard.
        save_seconds: the most seconds of training that a kill can cost.
        progress: is told how far the run is.

    Returns:
        The report, as it is kept in `summary.json`.

    Raises:
        SalpipeError: an option that cannot be, shards that do not serve, another run in the folder, a loss that is
            not finite, or a full disk. What was written stays.
    """
    config, folder, progress = config or TrainConfig(), Path(output), progress or Progress()
    check_names(config)
    keep_large_blocks()
    fabric = _fabric(config.device)
    leads = fabric.global_rank == 0
    progress = progress if leads else Progress()
    if fabric.world_size == 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        progress.note("WORLD_SIZE is set, but torchrun did not start this process: it trains alone")
    pairs = ShardFolder(shards)
    # so that evaluation finds the table from whatever folder
    config = replace(config, group_by=anchored(config.group_by))
    refuse_among_images(folder, shards)
    refuse_shards(folder)
    make_output(folder)
    with FolderLock(folder, note=progress.note) if leads else nullcontext():
        stored: TrainConfig | None = fabric.broadcast(TrainConfig.read(folder) if leads else None)
        if stored is None and (folder / LAST).exists():
            raise SalpipeError(f"{folder}: holds a run without its {CONFIG}; choose another output folder")
        if stored is not None:
            check_same(folder, stored, config)
            if stored.device != fabric.device.type:
                raise PlanMismatchError(
                    f"{folder} holds a run on {stored.device}; give --device {stored.device}, or choose another folder"
                )
            if stored.schedule == "cosine" and stored.epochs != config.epochs:
                progress.note("the cosine now ends with another epoch: not what a run of so many from the start gives")
            config = replace(stored, epochs=config.epochs)
        return _train(pairs, folder, config, fabric, progress, tensorboard, save_seconds, new=stored is None)


def is_leading() -> bool:
    """Whether this process is the one that writes and speaks, of all that torchrun started."""
    return training_processes().rank == 0


def _fabric(device: str) -> Fabric:
    """One process, or as many as torchrun started; Fabric, left to search, would take any SLURM job for a launcher."""
    found, processes = find_device(device), training_processes()
    alone = processes.world == 1
    if not alone and found.index is not None:
        raise SalpipeError(f"--device {device}: torchrun shares the GPUs out; use --device cuda")
    with launchers_hidden():  # they are read when it is imported, too
        import lightning_fabric as lightning
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        fabric = lightning.Fabric(
            accelerator=found.type,
            strategy="auto" if alone else "ddp",
            devices=processes.local if found.index is None else [found.index],
            num_nodes=processes.world // processes.local,
            plugins=LightningEnvironment() if alone else TorchElasticEnvironment(),
        )
        fabric.launch()
    if processes.world > 1:
        atexit.register(_leave_process_group)
    return fabric


def _leave_process_group() -> None:
    """End the threads of the process group: a process that exits while they run may be aborted."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _train(
    pairs: ShardFolder,
    folder: Path,
    config: TrainConfig,
    fabric: Fabric,
    progress: Progress,
    tensorboard: bool,
    save_seconds: float,
    *,
    new: bool,
) -> RunReport:
    """A run from its options to its report."""
    leads, device = fabric.global_rank == 0, fabric.device
    # of one process for all: frames that are barely alike may be judged otherwise on other hardware
    groups = cast("Groups", fabric.broadcast(find_groups(config, pairs, progress) if leads else None))
    parts, automatic = assemble(config, pairs, device, groups), config.precision == "auto"
    config, spec, network, train, validation = parts.config, parts.spec, parts.network, parts.train, parts.validation
    report = str(parts.initialization)
    shuffle = choose_shuffle(pairs, len(train.dataset))
    about: dict[str, Any] = {
        "shards": {"path": str(pairs.path.resolve()), "plan": pairs.header.plan, "provenance": pairs.provenance},
        "images": {"train": len(train.dataset), "validation": len(validation.dataset), "pool": parts.pool},
        "groups": groups.record(config),
        "initialization": {
            **asdict(parts.initialization),
            "report": report,
            "sha256": parts.initial_sha256,
            "tensors": parts.initial_tensors,
        },
    }
    if not new:
        shuffle = _same_beginning(folder, about, config.maps)
        if leads:
            _complete(folder, about)
    if automatic:
        # the processes of torchrun may run on different hardware: the first one decides for all
        config = replace(config, precision=fabric.broadcast(_precision(parts, shuffle, progress) if leads else ""))
    board = TensorBoardWriter(folder, wanted=tensorboard and leads)
    if leads:
        if new:
            start = start_distance(network, spec, parts.inputs, validation)
            if config.freeze and start is not None and not is_neutral(start):
                progress.note(_frozen_start(config, start))
            extra = {"start": start, "shuffle": shuffle, "leaks": leak_records(parts.leaks)}
            write_json(folder / PROVENANCE, about | extra | {"environment": environment(device, fabric.world_size)})
        progress.note(f"{len(train.dataset):,} images train, {len(validation.dataset):,} validate; {config.precision}")
        progress.note(report)
        if apart := divided(pairs, groups, folds=bool(config.folds)):
            progress.note(f"{apart:,} images have near duplicates, or others of their group, in another split")
        for leak in parts.leaks:
            progress.note(f"accepted with --allow-leaks {leak.name}: {leak.problem}")
    if fabric.world_size > 1:
        network = synchronize(network, device)
    model, optimizer = fabric.setup(network, make_optimizer(config, network))
    state = load_last(folder, network, optimizer.optimizer)
    if len(pairs.classes) <= TOP:
        state.drop_top5()
    if config.epochs < state.epoch:
        raise SalpipeError(f"--epochs {config.epochs}: {folder} has {state.epoch} epochs already; use that or more")
    if leads:
        config.write(folder)
    images = training_images(config, pairs, train.dataset.rows) if leads else None
    saved_about = {"config": asdict(config), **{name: about[name] for name in ("shards", "groups", "initialization")}}

    def save(state: State) -> None:
        if leads:
            save_last(folder, network, optimizer.optimizer, state)

    def finished(state: State, better: bool, logits: Logits) -> None:
        if not leads:
            return
        row, shown = state.rows[-1], validation.dataset
        write_answers(folder, pairs.keys_at(shown.rows), shown.labels, logits, pairs.classes)
        if better:
            scores = {name: value for name, value in row.items() if name.startswith("validation_") or name == "epoch"}
            write_trained(folder / BEST, network, spec, saved_about | {"scores": scores}, images)
        save(state)
        write_metrics(folder, state.rows)
        board.add(row)
        progress.note(
            f"epoch {row['epoch']}/{config.epochs}: train {row['train_loss']:.3f} {row['train_top1']:.1%}, validation "
            f"{row['validation_loss']:.3f} {row['validation_top1']:.1%}{' (best)' if better else ''}, "
            f"{row['images_per_second']:.1f} images/s"
        )

    trainer = Trainer(
        config=config,
        fabric=fabric,
        network=network,
        model=model,
        optimizer=optimizer,
        inputs=parts.inputs,
        train=train,
        validation=validation,
        weights=class_weights(config, train, len(pairs.classes), device),
        frozen=parts.frozen,
        shuffle=shuffle,
        progress=progress,
        save=save,
        finished=finished,
        save_seconds=save_seconds,
    )
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            trainer.fit(state)
    finally:
        board.close()
        if leads and state.rows:
            # once more: a kill may have come between the last checkpoint and its metrics
            write_metrics(folder, state.rows)
            write_curves(folder, state.rows, f"{config.arch} {config.backbone}")
    result = _report(folder, config, state, report)
    if leads:
        parameters = sum(p.numel() for p in network.parameters())
        write_json(folder / SUMMARY, asdict(result) | {"classes": len(pairs.classes), "parameters": parameters})
    return result


def _precision(parts: Parts, shuffle: tuple[int, int] | None, progress: Progress) -> str:
    """The precision of a run with `--precision auto`."""
    config, train = parts.config, parts.train
    if config.precision != "auto":
        return config.precision
    order = epoch_order(len(train.dataset), config.run_seed, 0, *(shuffle or ()))
    first = epoch_batches(order, config.batch_size)[0]
    progress.note("choosing the precision on the first batch")
    return choose_precision(parts.network, parts.spec, parts.inputs(train.prepare(first, 0)))


def _frozen_start(config: TrainConfig, start: Start) -> str:
    """The warning of a network that is partly frozen although the maps change what its frozen layers read."""
    distance = start["features"]["eval"]
    return (
        f"--freeze {config.freeze}: --fusion {config.fusion} moves the features by {distance:.0%} of their norm before "
        "anything is learned, and frozen layers cannot adapt to that; use --fusion neutral"
    )


def _same_beginning(folder: Path, about: Mapping[str, Any], maps: str) -> tuple[int, int] | None:
    """Compare what a run began with, which its options alone do not say; the way it shuffles is kept.

    Raises:
        PlanMismatchError: the shards or groups are others, or the weights it began with.
    """
    stored = read_json(folder / PROVENANCE)
    try:
        if stored["shards"]["plan"] != about["shards"]["plan"] or stored["images"] != about["images"]:
            raise PlanMismatchError(f"{folder} holds a run on other shards; choose another output folder")
        if maps in RENEWED and "groups" not in stored:
            raise PlanMismatchError(
                f"{folder} holds a run of an earlier version, in which --maps {maps} were other maps; choose another "
                "output folder"
            )
        check_same_groups(folder, stored.get("groups"), about["groups"])
        if stored["initialization"]["sha256"] != about["initialization"]["sha256"]:
            raise PlanMismatchError(
                f"{folder} holds a run that began with other weights (--weights or --from has changed); choose "
                "another output folder"
            )
        shuffle = None if stored["shuffle"] is None else (int(stored["shuffle"][0]), int(stored["shuffle"][1]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SalpipeError(f"{folder / PROVENANCE}: damaged; choose another output folder") from error
    return shuffle


def _complete(folder: Path, about: Mapping[str, Any]) -> None:
    """Add the digests of the first weights to a run of an earlier version, whose first weights are proved the same."""
    stored = read_json(folder / PROVENANCE)
    if "tensors" not in stored["initialization"]:
        tensors = about["initialization"]["tensors"]
        write_json(folder / PROVENANCE, stored | {"initialization": stored["initialization"] | {"tensors": tensors}})


def _report(folder: Path, config: TrainConfig, state: State, initialization: str) -> RunReport:
    if state.best is None:
        raise SalpipeError(f"{folder}: no epoch was trained; use --epochs 1 or more")
    stopped = state.epoch < config.epochs
    return RunReport(
        str(folder),
        state.epoch,
        stopped,
        state.best,
        state.rows[-1],
        state.elapsed,
        config.precision,
        initialization,
    )
