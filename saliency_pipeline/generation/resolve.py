"""From a configuration to a job: what is left open is chosen, once per output folder, and stored as the plan."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.generation.annotated import computed, described_maps, given_shapes
from saliency_pipeline.generation.background import IMAGES, Frames, describe_background, sample_background
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.job import Job, build_explainer, decode_record, frame_as_stored
from saliency_pipeline.generation.plan import (
    PASSED_OVER,
    Choices,
    Plan,
    check_same_origin,
    check_same_plan,
    check_same_sizes,
    library_versions,
    store_plan,
    stored_plan,
)
from saliency_pipeline.generation.summary import DataSummary
from saliency_pipeline.images.record import ImageRecord
from saliency_pipeline.images.remote_record import is_remote, need
from saliency_pipeline.models.source.registry import is_own, stored_name
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.models.trained.training_images import ENTRY
from saliency_pipeline.remote.ahead import reading_ahead
from saliency_pipeline.saliency.capability import LIMITED, check_capable
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import parse_target
from saliency_pipeline.saliency.tuning import FRAMES, choose_placement, default_batch
from saliency_pipeline.shards.schema import MapShape, ShardHeader
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.text import plural
from saliency_pipeline.workers import usable_cores

Note = Callable[[str], None]


def resolve(
    folder: Path,
    config: GenerateConfig,
    data: DataSummary,
    threads: int,
    note: Note,
    background: Frames | None = None,
) -> tuple[Job, Callable[[], Explainer]]:
    """Resolve a configuration to a job, and a function that builds its explainer in this process.

    If the folder has a plan, its choices are used; they are made only once per folder, which is locked.

    Args:
        folder: the output folder.
        config: the configuration.
        data: the data set.
        threads: threads of the process that will run the job on a CPU.
        note: receives notes.
        background: see `generate`.

    Raises:
        PlanMismatchError: the folder holds the shards of another plan.
        SalpipeError: the source model, layer, target, backend or device is not available.
    """
    note(f"{plural(data.images, 'image')} in {plural(len(data.classes), 'class')}; loading {config.model}")
    source = load_source(config.model, config.weights)
    for text in source.notes:
        note(text)
    source = source.with_size(config.size or source.preprocessing.size)
    config = replace(stored_names(config), model=source.name, device=str(find_device(config.device)))
    names = data.ids or data.classes
    target = parse_target(
        config.target, len(source.classes), source.class_index, names, data.unlabeled, source.class_named
    )
    background = _background(config, data, source, background)
    settings = replace(config, weights=source.weights)
    plan, tried = stored_plan(folder), None
    if plan is None:
        methods, choices, tried = _choose(config, data, source, note)
        # a graph and its module refer to each other: the rejected candidates' weights are not freed otherwise
        gc.collect()
        record = _record(config, data, source, methods, choices.backend, background)
        plan = store_plan(folder, Plan(settings, choices, data.identity, record, data.origin, data.layout, data.sizes))
    chosen = plan.resolved
    record = _record(config, data, source, (), chosen.backend, background)
    check_same_origin(folder, plan, data.origin)
    check_same_plan(folder, plan, Plan(settings, chosen, data.identity, record).identity)
    check_same_sizes(folder, plan, data.layout, data.sizes)
    methods = find_methods(computed(plan.record["methods"]))
    header = ShardHeader(
        plan.hash,
        plan.provenance,
        data.classes,
        source.preprocessing.size,
        "jpeg" if config.encoding == "jpeg" else "raw",
        {
            **map_shapes(methods, chosen.layers, source.preprocessing.size, target.count),
            **given_shapes(record["data"], source.preprocessing.size),
        },
        data.boxes,
        data.groups,
    )
    streams = threads if config.device == "cpu" else 2
    job = Job(
        str(folder), config, chosen, target, streams, header, background, root="" if is_url(data.root) else data.root
    )
    # with several workers the measured explainer fits none of them and would only take memory
    fitting = tried if tried and tried.placement == job.placement else None
    return job, lambda: fitting.with_target(target) if fitting else build_explainer(job, source)


def check_model(config: GenerateConfig) -> None:
    """Check explained layers and class, and whether the methods work on the source model, which is loaded and cached.

    Raises:
        SalpipeError: as `resolve`.
    """
    requested = find_methods(config.methods, config.layers)
    # a library's models have layers to explain, one's own network may have none
    works_always = not is_own(config.model) and not any(m.needs & LIMITED or m.explained() for m in requested)
    if works_always and not config.layers and config.target in ("predicted", "label"):
        return
    source = load_source(config.model, config.weights)
    if config.target != "label":
        parse_target(config.target, len(source.classes), source.class_index)
    source = source.with_size(config.size or source.preprocessing.size)
    layers, methods = explained_layers(source, find_methods(config.methods, config.layers), config.layers, config.size)
    batch = config.batch_size or default_batch(methods, str(find_device(config.device)))
    check_capable(source, methods, layers, batch)


def stored_names(config: GenerateConfig) -> GenerateConfig:
    """A configuration with the names under which its model and methods are stored."""
    methods = find_methods(config.methods, config.layers)
    return replace(config, model=stored_name(config.model), methods=tuple(method.canonical for method in methods))


def map_shapes(methods: Sequence[Method], layers: Sequence[Layer], size: int, targets: int) -> dict[str, MapShape]:
    """Shape of the maps of each method, by its canonical name.

    Raises:
        SalpipeError: a method explains a layer that is not among `layers`, as in a damaged plan.
    """
    grids, shapes = {layer.name: layer.grid for layer in layers}, {}
    for method in methods:
        try:
            height, width = method.shape(grids, size)
        except (LookupError, StopIteration):
            raise SalpipeError(
                f"--method {method.canonical}: its layer is none of the plan's ({', '.join(grids) or 'none'}); choose "
                "another output folder"
            ) from None
        count = targets if method.class_specific else 1
        shapes[method.canonical] = MapShape(count, height, width, method.complete, method.sampled)
    return shapes


def compares(config: GenerateConfig) -> bool:
    """Return whether a method compares with other images."""
    return any(method.needs_background for method in find_methods(config.methods))


def _background(config: GenerateConfig, data: DataSummary, source: SourceModel, frames: Frames | None) -> Frames | None:
    """The images that methods compare with: those of the caller or some of the data set; None if no method does."""
    if not compares(config):
        return None
    size = source.preprocessing.size
    if frames is None:

        def decode(record: ImageRecord) -> Frames:
            decoded = decode_record(record, record.read(), config, size, source.preprocessing.interpolation)
            return frame_as_stored(decoded.frame, config)[0]

        with reading_ahead(is_remote(data.background)) as ahead:
            need(ahead, data.background[:IMAGES])
            frames = sample_background(data.background, decode)
    if not len(frames):
        raise SalpipeError(f"{data.root}: none of its images can be used, so that there is nothing to compare with")
    if frames.shape[1:] != (size, size, 3) or frames.dtype != np.uint8:
        raise SalpipeError(
            f"background: {frames.dtype} {frames.shape} is not uint8 (M, {size}, {size}, 3); use frames of that shape"
        )
    return frames


def _choose(
    config: GenerateConfig, data: DataSummary, source: SourceModel, note: Note
) -> tuple[Sequence[Method], Choices, Explainer | None]:
    """Choose what the configuration leaves open. Nothing here depends on how many jobs will run."""
    layers, methods = explained_layers(source, find_methods(config.methods, config.layers), config.layers, config.size)
    batch = config.batch_size or default_batch(methods, config.device)
    check_capable(source, methods, layers, batch)
    note("choosing backend and precision on the first images")
    frames = _first_frames(data, config, source, FRAMES)
    placement, tried = choose_placement(
        source,
        layers,
        methods,
        frames,
        backend=config.backend,
        precision=config.precision,
        device=config.device,
        streams=usable_cores() if config.device == "cpu" else 2,
        batch=batch,
    )
    return methods, Choices(layers, placement.backend, placement.precision, batch), tried


def _record(
    config: GenerateConfig,
    data: DataSummary,
    source: SourceModel,
    methods: Sequence[Method],
    backend: str,
    background: Frames | None,
) -> dict[str, Any]:
    """How the maps are made, besides settings and choices, as every shard stores it."""
    p = source.preprocessing
    described: dict[str, object] = {
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": source.weights_sha256,
        **({"code_sha256": source.code_sha256} if source.code_sha256 else {}),
        "size": p.size,
        "mean": list(p.mean),
        "std": list(p.std),
        "interpolation": p.interpolation,
        "classes": list(source.classes),
    }
    if (images := source.training_images()) is not None:
        # the flags say which; null where the source model's file does not record all
        described[ENTRY] = len(images) if images.complete else None
    return {
        "source": described,
        "methods": {m.canonical: m.describe() for m in methods} | described_maps(data.taken),
        "data": dict(data.taken),
        "versions": library_versions(backend, config.methods),
        **({} if background is None else {"background": describe_background(background)}),
        **({PASSED_OVER: dict(data.passed_over)} if data.passed_over else {}),
    }


def _first_frames(data: DataSummary, config: GenerateConfig, source: SourceModel, count: int) -> np.ndarray:
    """Frames of some images of the data set, on which placements are measured; gray if no image can be used."""
    p = source.preprocessing
    frames = []
    with reading_ahead(is_remote(data.measured)) as ahead:
        need(ahead, data.measured[:count])
        for record in data.measured:
            try:
                frame = decode_record(record, record.read(), config, p.size, p.interpolation).frame
            except (BadImageError, OSError):
                continue
            frames.append(frame)
            if len(frames) == count:
                break
    return np.stack(frames) if frames else np.full((1, p.size, p.size, 3), 128, np.uint8)
