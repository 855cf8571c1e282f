"""The parts of a run that its configuration and its shards decide: network, data sets, optimizer, class weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from saliency_pipeline.devices import computes_bf16
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.memory import usable_memory
from saliency_pipeline.models.preprocessing import preprocessing_of
from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.models.source.build import compare_file, require_pretrained
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.source.weights import state_sha256, tensor_digests
from saliency_pipeline.models.trained.freeze import freeze, training_mode
from saliency_pipeline.models.trained.initialize import InitReport, initialize
from saliency_pipeline.models.trained.trained import load_trained, open_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.batchnorm import single_valued
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.groups import Groups, find_groups
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.split import Split, choose_split
from saliency_pipeline.training.leaks import Leak, refuse_leaks, start_of
from saliency_pipeline.training.processes import training_processes

BLOCK = 64
"""Rows that are read one after the other where the frames do not fit into memory."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What training begins with.

    Attributes:
        config: the options, `method` and `device` chosen.
        spec: what the network is.
        network: with its first weights, on the device.
        initialization: where they came from.
        initial_sha256: of those weights, in hexadecimal.
        initial_tensors: shape and digest of each of them; see `models.source.weights.tensor_digests`.
        frozen: names of the layers that stay as they are.
        inputs: batches to tensors on the device.
        train: training images, augmented.
        validation: validation images as they are.
        pool: how many images the training images were drawn from.
        leaks: leaks that `allow_leaks` accepts.
    """

    config: TrainConfig
    spec: NetworkSpec
    network: nn.Module
    initialization: InitReport
    initial_sha256: str
    initial_tensors: dict[str, str]
    frozen: tuple[str, ...]
    inputs: Inputs
    train: Prefetcher
    validation: Prefetcher
    pool: int
    leaks: tuple[Leak, ...] = ()


def assemble(config: TrainConfig, pairs: ShardFolder, device: torch.device, groups: Groups | None = None) -> Parts:
    """Build the network, give it its first weights, and choose the images.

    Args:
        config: the options.
        pairs: the images and maps.
        device: where the network is to run.
        groups: what folds keep together, as `find_groups` returns it; None for what has to be searched first.

    Raises:
        SalpipeError: an option that cannot be, a leak that is not accepted, or shards that do not serve.
    """
    spec = network_spec(config, pairs)
    # without instructions for bf16 there is nothing to choose from
    precision = config.precision if config.precision != "auto" or computes_bf16(device) else "fp32"
    config = replace(config, method=chosen_method(config, pairs), device=device.type, precision=precision)
    train, validation, pool = datasets(config, spec, pairs, groups)
    leaks = refuse_leaks(config, pairs, validation.dataset.rows, start_of(config))
    network = build_network(spec)
    start = load_trained(config.start) if config.start else None
    report = initialize(network, spec, config.init, weights=config.weights, checkpoint=start, seed=config.run_seed)
    initial, tensors = state_sha256(network), tensor_digests(network)
    frozen = freeze(network, spec, config.freeze) if config.freeze else ()
    training_mode(network, frozen)
    check_batches(network, spec, config.batch_size, len(train.dataset))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = Inputs(preprocessing_of(spec.backbone, *find_source(spec.backbone)), device)
    return Parts(config, spec, network, report, initial, tensors, frozen, inputs, train, validation, pool, leaks)


def check_names(config: TrainConfig) -> None:
    """Check that the backbone, the file of weights and the run that a configuration names can serve, before anything
    long begins.

    Raises:
        SalpipeError: one of them is not there, of another kind or does not fit.
    """
    library, bare = find_source(config.backbone)
    if config.init == "half" and config.weights == "default":
        require_pretrained(config.backbone, library, bare)
    elif config.init == "half" and config.weights != "none":
        compare_file(config.backbone, library, bare, Path(config.weights))
    if config.start is not None:
        open_trained(config.start)


def check_batches(network: nn.Module, spec: NetworkSpec, batch_size: int, images: int) -> None:
    """Raises SalpipeError where a step has one image, and BatchNorm cannot do with one: its maps are of 1 x 1 there."""
    if images // -(-images // batch_size) > 1 or training_processes().world > 1:  # together these have more
        return
    maps = torch.zeros(1, 1, spec.size, spec.size)
    layer = single_valued(network, lambda: network(probe_frames(spec.size, 1), maps))
    if not layer:
        return
    larger = next((size for size in range(2, images + 1) if images // -(-images // size) > 1), None)
    remedy = f"use --batch-size {larger}" if larger else "give it more training images"
    raise SalpipeError(
        f"--batch-size {batch_size}: of {images} training images a step has only one, for which BatchNorm ({layer}) "
        f"needs larger frames than {spec.size}x{spec.size}; {remedy}, or shards of a larger --size"
    )


def network_spec(config: TrainConfig, pairs: ShardFolder) -> NetworkSpec:
    """The network that a configuration asks for on some shards."""
    return NetworkSpec(
        config.backbone,
        pairs.classes,
        pairs.header.size,
        config.arch,
        config.fusion,
        config.fuse_at,
        config.alpha,
        config.learn_alpha,
    )


def chosen_method(config: TrainConfig, pairs: ShardFolder) -> str | None:
    """The method whose maps are read; None where the network reads none.

    Raises:
        SalpipeError: maps are needed and the shards hold none.
    """
    if config.arch != "modulated":
        return None
    if config.method is None and not pairs.methods:
        raise SalpipeError(f"{pairs.path} holds no maps; make them with 'salpipe generate', or use --arch baseline")
    return config.method or pairs.methods[0]


def datasets(
    config: TrainConfig, spec: NetworkSpec, pairs: ShardFolder, groups: Groups | None = None
) -> tuple[Prefetcher, Prefetcher, int]:
    """Training images, augmented, validation images as they are, and how many the former were drawn from."""
    split = split_of(config, pairs, groups)
    world = training_processes().world
    images = len(split.train)
    if images // -(-images // config.batch_size) < world:
        raise SalpipeError(
            f"{images} training images in steps of --batch-size {config.batch_size}: fewer in some step than {world} "
            "processes; use fewer processes or larger steps"
        )
    method = config.method if spec.needs_maps else None
    train, validation = (
        PairDataset(pairs, rows, method, config.map_target, config.maps, config.run_seed)
        for rows in (split.train, split.validation)
    )
    return (
        Prefetcher(train, Transform(config.normalize, config.augment, config.run_seed)),
        Prefetcher(validation, Transform(config.normalize)),
        split.pool,
    )


def split_of(config: TrainConfig, pairs: ShardFolder, groups: Groups | None = None) -> Split:
    """The images that train and those that validate.

    Args:
        config: the options.
        pairs: the images.
        groups: as in `assemble`; only folds need them.

    Raises:
        SalpipeError: as `choose_split` and `find_groups`.
    """
    if groups is None and (config.folds or config.inner_split):
        groups = find_groups(config, pairs)
    return choose_split(
        *labels_and_splits(pairs),
        pairs.classes,
        **(groups.kept_together() if groups else {}),
        folds=config.folds,
        fold=config.fold,
        per_class=config.per_class,
        limit=config.limit,
        inner=config.inner_split,
        seed=config.seed,
    )


def labels_and_splits(pairs: ShardFolder) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Label int64 (N,) and split int8 (N,) of every image of a folder."""
    shards = [pairs.shard(number) for number in range(len(pairs.shards))]
    labels = [shard.labels for shard in shards] or [np.zeros(0, np.int64)]
    splits = [shard.splits for shard in shards] or [np.zeros(0, np.int8)]
    return np.concatenate(labels), np.concatenate(splits)


def choose_shuffle(pairs: ShardFolder, images: int) -> tuple[int, int] | None:
    """Rows of a block and blocks of a window for `epoch_order`; None where half the memory holds all frames.

    Blocks are small beside classes, and a window is as many as a quarter of the memory holds: disks read on within a
    block, and a batch mixes thousands of them.
    """
    memory = usable_memory()
    frame = pairs.header.size**2 * 3 * (1 if pairs.header.encoding == "raw" else 0.15)
    if images * frame <= memory / 2:
        return None
    return BLOCK, max(8, int(memory / 4 / (BLOCK * frame)))


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay is for weights alone, not for biases and norms."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def class_weights(config: TrainConfig, train: Prefetcher, classes: int, device: torch.device) -> Tensor | None:
    """Inverse frequencies, of mean 1 over the images."""
    if config.class_weights == "none":
        return None
    counts = np.bincount(train.dataset.labels, minlength=classes)
    return torch.tensor(len(train.dataset) / (classes * counts), dtype=torch.float32, device=device)
