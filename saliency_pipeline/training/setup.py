"""Set-up of a training run from its options and shards: network, data sets, optimizer, class weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saliency_pipeline.devices import computes_bf16
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.models.preprocessing import preprocessing_of
from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.models.source.build import compare_file, require_pretrained
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.source.weights import state_sha256, tensor_digests
from saliency_pipeline.models.trained.depthwise import use_fast_depthwise
from saliency_pipeline.models.trained.freeze import freeze, training_mode
from saliency_pipeline.models.trained.initialize import InitReport, initialize
from saliency_pipeline.models.trained.pooled import PooledLayer
from saliency_pipeline.models.trained.trained import load_trained, open_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.methods import is_signed, stored_method
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.batchnorm import single_valued
from saliency_pipeline.training.config import ORACLE, SELF, TrainConfig
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.groups import Groups, find_groups
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.self_maps import BaselineRun, SelfMaps, computed_method
from saliency_pipeline.training.data.sources import MapSource, OracleMaps
from saliency_pipeline.training.data.split import Split, Together, choose_split
from saliency_pipeline.training.leaks import Leak, refuse_leaks, start_of
from saliency_pipeline.training.loss import supervised_layer
from saliency_pipeline.uses.mix import Mix


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that a training run begins with.

    Attributes:
        config: the options, with `method` and `device` resolved.
        spec: specification of the network.
        network: the network with its initial weights, on the device.
        initialization: origin of the weights.
        initial_sha256: SHA-256 of the weights, in hexadecimal.
        initial_tensors: shape and digest of each tensor; see `models.source.weights.tensor_digests`.
        frozen: names of the frozen layers.
        inputs: moves batches to the device.
        train: training images, augmented.
        validation: validation images, not augmented.
        pool: number of images that the training images were sampled from.
        leaks: leaks that `allow_leaks` accepts.
        supervised: layer whose class activation map the loss supervises; None for other losses.
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
    supervised: PooledLayer | None = None


def set_up(
    config: TrainConfig,
    pairs: ShardFolder,
    device: torch.device,
    groups: Groups | None = None,
    world: int = 1,
    progress: Progress | None = None,
) -> Setup:
    """Build and initialize the network, and choose the images; `groups` are searched for if they are None.

    Maps of the run's own baseline (`--maps self`) are made if they are missing.

    Raises:
        SalpipeError: an invalid option, a leak that is not accepted, or unsuitable shards.
    """
    spec = network_spec(config, pairs)
    # without instructions for bf16 there is no choice
    precision = config.precision if config.precision != "auto" or computes_bf16(device) else "fp32"
    config = replace(config, method=chosen_method(config, pairs), device=device.type, precision=precision)
    train, validation, pool = datasets(config, spec, pairs, groups, world)
    source, images = train.dataset.source, None
    if isinstance(source, SelfMaps):
        source.baseline.refuse_other_shards(pairs)
        images = source.baseline.training_images()
    leaks = refuse_leaks(config, pairs, validation.dataset.rows, start_of(config), images)
    if source is not None:
        rows = [dataset.rows for dataset in (train.dataset, validation.dataset) if dataset.source is not None]
        source.prepare(np.concatenate(rows), device, progress or Progress())
    network = build_network(spec)
    supervised = supervised_layer(config, network, spec)
    start = load_trained(config.start) if config.start else None
    report = initialize(network, spec, config.init, weights=config.weights, checkpoint=start, seed=config.run_seed)
    initial, tensors = state_sha256(network), tensor_digests(network)
    frozen = freeze(network, spec, config.freeze) if config.freeze else ()
    training_mode(network, frozen)
    if world == 1:  # several processes have more than one image per step together
        check_batches(network, spec, config.batch_size, len(train.dataset))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        use_fast_depthwise(network)
    inputs = Inputs(preprocessing_of(spec.backbone, *find_source(spec.backbone)), device)
    return Setup(
        config, spec, network, report, initial, tensors, frozen, inputs, train, validation, pool, leaks, supervised
    )


def check_names(config: TrainConfig) -> None:
    """Check early that the backbone, weights file and run that a configuration names exist and fit.

    Raises:
        SalpipeError: one of them is missing, of another kind or does not fit.
    """
    library, bare = find_source(config.backbone)
    if config.init == "half" and config.weights == "default":
        require_pretrained(config.backbone, library, bare)
    elif config.init == "half" and config.weights != "none":
        compare_file(config.backbone, library, bare, Path(config.weights))
    if config.start is not None:
        open_trained(config.start)


def check_batches(network: nn.Module, spec: NetworkSpec, batch_size: int, images: int) -> None:
    """Raises SalpipeError where a step has a single image and a BatchNorm layer would see one value per channel."""
    if images // -(-images // batch_size) > 1:
        return
    maps = torch.zeros(1, 1, spec.size, spec.size)
    layer = single_valued(network, lambda: network(probe_frames(spec.size, 1), maps))
    if not layer:
        return
    larger = next((size for size in range(2, images + 1) if images // -(-images // size) > 1), None)
    remedy = f"use --batch-size {larger}" if larger else "add training images"
    raise SalpipeError(
        f"--batch-size {batch_size}: of {images} training images a step has only one, for which BatchNorm ({layer}) "
        f"needs larger frames than {spec.size}x{spec.size}; {remedy}, or shards of a larger --size"
    )


def network_spec(config: TrainConfig, pairs: ShardFolder) -> NetworkSpec:
    """Specification of the network for a configuration and shards.

    Raises:
        OptionError: `--size` is larger than the frames of the shards.
    """
    if config.size is not None and config.size > pairs.header.size:
        raise OptionError(
            f"--size {config.size}: larger than the frames of {pairs.path} ({pairs.header.size} pixels); use a smaller "
            "one, or make larger frames with 'salpipe generate --size'"
        )
    return NetworkSpec(
        config.backbone,
        pairs.classes,
        config.size or pairs.header.size,
        config.arch,
        config.fusion,
        config.fuse_at,
        config.alpha,
        config.learn_alpha,
    )


def chosen_method(config: TrainConfig, pairs: ShardFolder) -> str | None:
    """Stored name of the saliency method whose maps the network reads; None if it reads none.

    For `--maps self` the name of the method to compute, for `--maps oracle` None.

    Raises:
        SalpipeError: maps are needed and the shards hold none, none of the method, or those of several of that name.
    """
    if not config.reads_maps or config.maps == ORACLE:
        return None
    if config.maps == SELF:
        return computed_method(config.method).canonical
    if config.method is None and not pairs.methods:
        raise SalpipeError(f"{pairs.path} holds no maps; make them with 'salpipe generate', or use --arch baseline")
    return pairs.methods[0] if config.method is None else stored_method(pairs, config.method)


def datasets(
    config: TrainConfig, spec: NetworkSpec, pairs: ShardFolder, groups: Groups | None = None, world: int = 1
) -> tuple[Prefetcher, Prefetcher, int]:
    """Training images, augmented; validation images, not augmented; and the size of the pool of the former."""
    split = split_of(config, pairs, groups)
    images = len(split.train)
    if images // -(-images // config.batch_size) < world:
        raise SalpipeError(
            f"{images} training images in steps of --batch-size {config.batch_size}: some step has fewer than {world} "
            "images, one per process; use fewer processes or larger steps"
        )
    if isinstance(config.map_use, Mix) and world > 1 and config.batch_size < 2 * world:
        raise SalpipeError(
            f"--use {config.use}: mixes images of one process, and some of {world} processes have a single one in "
            f"steps of --batch-size {config.batch_size}; use fewer processes or larger steps"
        )
    source = map_source(config, pairs) if config.reads_maps else None
    method = config.method if config.reads_maps and source is None else None
    signed = source.signed if source else method is not None and is_signed(pairs.provenance, method)
    train, validation = (
        PairDataset(
            pairs,
            rows,
            method if reads else None,
            config.map_target,
            config.maps,
            config.run_seed,
            source if reads else None,
        )
        for rows, reads in ((split.train, True), (split.validation, config.maps_at_test))
    )
    transform = transform_of(config, spec, signed)
    training = replace(transform, augment=config.augment, training=True, seed=config.run_seed)
    return Prefetcher(train, training), Prefetcher(validation, transform), split.pool


def map_source(config: TrainConfig, pairs: ShardFolder) -> MapSource | None:
    """The source of a run's maps, where that is no method of the shards.

    Raises:
        SalpipeError: the shards hold no boxes (`--maps oracle`), or the baseline cannot be used (`--maps self`).
    """
    if config.maps == ORACLE:
        return OracleMaps(pairs)
    if config.maps != SELF:
        return None
    return SelfMaps(pairs, baseline_of(config), computed_method(config.method))


def baseline_of(config: TrainConfig) -> BaselineRun:
    """The run whose network makes the maps of `--maps self`.

    Raises:
        SalpipeError: none is named, or it is not there, unfinished, damaged or no baseline.
    """
    if config.from_baseline is None:
        raise OptionError("--maps self: needs the run whose network makes the maps; add --from-baseline RUN")
    return BaselineRun.open(config.from_baseline)


def transform_of(config: TrainConfig, spec: NetworkSpec, signed: bool) -> Transform:
    """The transform of validation and new images, without augmentation."""
    mean = preprocessing_of(spec.backbone, *find_source(spec.backbone)).mean
    return Transform(config.normalize, signed=signed, use=config.map_use, size=config.size, mean=mean)


def unmarked_note(config: TrainConfig, unmarked: int, images: int) -> str | None:
    """A sentence on images whose map is 0 everywhere; None if there are none."""
    if not unmarked:
        return None
    use, effect = config.map_use, ""
    if use is not None:
        effect = "stay as they are" if use.at_test else "are trained on as without maps"
        effect = f"; with --use {use.name} these images {effect}"
    return f"the maps of {unmarked:,} of {images:,} images are 0 everywhere and mark no place{effect}"


def split_of(config: TrainConfig, pairs: ShardFolder, groups: Groups | None = None) -> Split:
    """Training and validation images of a configuration.

    Raises:
        SalpipeError: as `choose_split` and `find_groups`.
    """
    if groups is None and (config.folds or config.inner_split):
        groups = find_groups(config, pairs)
    return choose_split(
        pairs.labels,
        pairs.splits,
        pairs.classes,
        together=groups.together if groups else Together(),
        folds=config.folds,
        fold=config.fold,
        per_class=config.per_class,
        limit=config.limit,
        inner=config.inner_split,
        seed=config.seed,
    )


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay is not applied to biases and normalization layers."""
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
    """Inverse class frequencies, float32 (C,), with mean 1 over the images; None where all classes count alike."""
    if config.class_weights == "none":
        return None
    counts = np.bincount(train.dataset.labels, minlength=classes)
    return torch.tensor(len(train.dataset) / (classes * counts), dtype=torch.float32, device=device)
