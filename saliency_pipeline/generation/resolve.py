"""From a configuration to a job: what is left open is chosen, once per output folder, and stored as the plan."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.job import Job, build_explainer, decode_record
from saliency_pipeline.generation.plan import (
    PASSED_OVER,
    Choices,
    Plan,
    check_same_plan,
    library_versions,
    plan_fields,
    records_digest,
    store_plan,
    stored_plan,
)
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.models.trained.training_images import ENTRY
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer, NoGridError
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers
from saliency_pipeline.saliency.targets import parse_target
from saliency_pipeline.saliency.tuning import FRAMES, choose_placement, default_batch
from saliency_pipeline.shards.schema import MapShape, ShardHeader
from saliency_pipeline.text import plural
from saliency_pipeline.workers import usable_cores

Note = Callable[[str], None]


def resolve(
    folder: Path, config: GenerateConfig, catalogue: Catalogue, jobs: int, note: Note
) -> tuple[Job, Callable[[], Explainer]]:
    """Resolve a configuration to a job, and a function that builds its explainer in this process.

    If the folder has a plan, its choices are used; they are made only once per folder, which is locked.

    Raises:
        PlanMismatchError: the folder holds the shards of another plan.
        SalpipeError: the source model, layer, target, backend or device is not available.
    """
    images, classes = plural(len(catalogue), "image"), plural(len(catalogue.classes), "class")
    note(f"{images} in {classes}; loading {config.model}")
    source = load_source(config.model, config.weights)
    for text in source.notes:
        note(text)
    source = source.with_size(config.size or source.preprocessing.size)
    methods = find_methods(config.methods)
    device = str(find_device(config.device))
    config = replace(config, model=source.name, device=device, methods=tuple(method.canonical for method in methods))
    unlabeled = sum(record.label < 0 for record in catalogue.records)
    names = catalogue.ids or catalogue.classes
    target = parse_target(config.target, len(source.classes), source.class_index, names, unlabeled, source.class_named)
    identify = partial(plan_fields, config, catalogue, source.weights_sha256, records_digest(catalogue))
    plan, tried = stored_plan(folder), None
    if plan is None:
        choices, tried = _choose(config, catalogue, source, methods, note)
        # a graph and its module refer to each other: the rejected candidates' weights are not freed otherwise
        gc.collect()
        provenance = _provenance(config, catalogue, source, methods, choices)
        plan = store_plan(folder, Plan(identify(choices.backend), choices, provenance))
    check_same_plan(folder, plan, identify(plan.resolved.backend))
    size, chosen = source.preprocessing.size, plan.resolved
    shapes = {m.canonical: m.shape({chosen.layer.name: chosen.layer.grid}, size) for m in methods}
    header = ShardHeader(
        plan.hash,
        dict(plan.provenance),
        catalogue.classes,
        size,
        "jpeg" if config.encoding == "jpeg" else "raw",
        {name: MapShape(target.count, *shape) for name, shape in shapes.items()},
        any(record.boxes for record in catalogue.records),
        any(record.group >= 0 for record in catalogue.records),
    )
    streams = max(1, usable_cores() // jobs) if config.device == "cpu" else 2
    placement = Placement(chosen.backend, chosen.precision, config.device, streams)
    job = Job(str(folder), config, size, chosen.layer, target, placement, chosen.batch_size, header)
    # with several workers the measured explainer fits none of them and would only take memory
    fitting = tried if tried and tried.placement == placement else None
    return job, lambda: fitting.with_target(target) if fitting else build_explainer(job, source)


def check_model(config: GenerateConfig) -> None:
    """Check the explained layer and class, for which the source model is loaded and cached.

    Raises:
        SalpipeError: as `resolve`.
    """
    if config.layer is None and config.target in ("predicted", "label"):
        return
    source = load_source(config.model, config.weights)
    if config.target != "label":
        parse_target(config.target, len(source.classes), source.class_index)
    if config.layer is not None:
        _layer(config, source.with_size(config.size or source.preprocessing.size))


def _layer(config: GenerateConfig, source: SourceModel) -> Layer:
    try:
        return prepared_layers(source, [config.layer] if config.layer else ())[0]
    except (NoGridError, RuntimeError, AssertionError, ValueError) as error:
        if config.size is None:
            raise
        problem = f"does not accept such frames ({str(error).splitlines()[0]:.80})"
        if isinstance(error, NoGridError):
            problem = "has no layer on a grid for such frames; use a larger size"
        raise SalpipeError(f"--size {config.size}: {config.model} {problem}") from error


def _choose(
    config: GenerateConfig, catalogue: Catalogue, source: SourceModel, methods: Sequence[Method], note: Note
) -> tuple[Choices, Explainer | None]:
    """Choose what the configuration leaves open. Nothing here depends on how many jobs will run."""
    layer = _layer(config, source)
    batch = config.batch_size or default_batch(methods, config.device)
    note("choosing backend and precision on the first images")
    frames = _first_frames(catalogue, config, source, FRAMES)
    placement, tried = choose_placement(
        source,
        [layer],
        methods,
        frames,
        backend=config.backend,
        precision=config.precision,
        device=config.device,
        streams=usable_cores() if config.device == "cpu" else 2,
        batch=batch,
    )
    return Choices(layer, placement.backend, placement.precision, batch), tried


def _provenance(
    config: GenerateConfig, catalogue: Catalogue, source: SourceModel, methods: Sequence[Method], choices: Choices
) -> dict[str, object]:
    """How the maps are made, as every shard stores it."""
    versions = library_versions(choices.backend)
    p = source.preprocessing
    described: dict[str, object] = {
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": source.weights_sha256,
        **({"code_sha256": source.code_sha256} if source.code_sha256 else {}),
        "layer": choices.layer.name,
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
        "salpipe": versions.pop("salpipe"),
        "source": described,
        "methods": {m.canonical: m.describe() for m in methods},
        "data": {"layout": catalogue.layout, **catalogue.taken},
        "target": config.target,
        "fit": config.fit,
        "max_pixels": config.max_pixels,
        "precision": choices.precision,
        "backend": choices.backend,
        "device": config.device,
        "batch_size": choices.batch_size,
        "versions": versions,
        **({PASSED_OVER: dict(catalogue.passed_over)} if catalogue.passed_over else {}),
        **({"jpeg_quality": config.jpeg_quality} if config.encoding == "jpeg" else {}),
    }


def _first_frames(catalogue: Catalogue, config: GenerateConfig, source: SourceModel, count: int) -> np.ndarray:
    """Frames spread evenly over the catalogue, on which placements are measured; gray if no image can be used."""
    p = source.preprocessing
    frames = []
    for record in catalogue.records[:: max(1, len(catalogue) // count)]:
        try:
            frame, _ = decode_record(record, record.read(), config, p.size, p.interpolation)
        except (BadImageError, OSError):
            continue
        frames.append(frame)
        if len(frames) == count:
            break
    return np.stack(frames) if frames else np.full((1, p.size, p.size, 3), 128, np.uint8)
