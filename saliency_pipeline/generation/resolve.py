"""From a request to a job: what the user left open is chosen, once per output folder, and becomes the plan."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import BadImageError, OptionError, SalpipeError
from saliency_pipeline.generation.job import Job, build_explainer, sized
from saliency_pipeline.generation.plan import (
    PASSED_OVER,
    PLAN,
    Plan,
    Request,
    check_same_plan,
    plan_fields,
    store_plan,
    stored_plan,
    with_backend_version,
)
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import FITS
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.models.trained.training_images import ENTRY
from saliency_pipeline.saliency.backends import BACKENDS, PRECISIONS, Placement
from saliency_pipeline.saliency.engine import Explainer
from saliency_pipeline.saliency.layers import Layer, NoGridError
from saliency_pipeline.saliency.methods import Method, find_methods
from saliency_pipeline.saliency.prepared import layer_from_json, prepared_layer
from saliency_pipeline.saliency.targets import Target, check_target, parse_target
from saliency_pipeline.saliency.tuning import FRAMES, choose_placement, default_batch
from saliency_pipeline.shards.schema import MapShape, ShardHeader
from saliency_pipeline.text import plural
from saliency_pipeline.workers import usable_cores

Note = Callable[[str], None]


@dataclass(frozen=True)
class Resolved:
    """A job and what had to be made to settle it.

    Attributes:
        job: the job.
        source: its source model.
        tried: the explainer of the job's placement where several were tried and it fits.
    """

    job: Job
    source: SourceModel
    tried: Explainer | None

    def explainer(self) -> Explainer:
        """The job's engine in this process."""
        if self.tried:
            return self.tried.with_target(self.job.target)
        return build_explainer(self.job, self.source)


def resolve(folder: Path, request: Request, catalogue: Catalogue, jobs: int, note: Note) -> Resolved:
    """The job that `request` means for `catalogue`.

    A folder that has a plan already goes on with what was chosen then; its choices are made afresh only once.

    Args:
        folder: the output folder, locked.
        request: what to compute, from `checked`.
        catalogue: the images.
        jobs: worker processes that will share the cores.
        note: told what is being done.

    Raises:
        PlanMismatchError: the folder holds the shards of another plan.
        SalpipeError: the source model, layer, target, back end or device cannot be had.
    """
    images, classes = plural(len(catalogue), "image"), plural(len(catalogue.classes), "class")
    note(f"{images} in {classes}; loading {request.model}")
    source = load_source(request.model, request.weights)
    for text in source.notes:
        note(text)
    source = sized(source, request.size or source.preprocessing.size)
    methods = find_methods(request.methods)
    device = str(find_device(request.device))
    request = replace(request, model=source.name, device=device, methods=tuple(method.name for method in methods))
    target = _target(request, source, catalogue)
    fields = plan_fields(request, catalogue, source.weights_sha256)
    plan, tried = stored_plan(folder), None
    if plan is None:
        plan, tried = _choose(fields, request, catalogue, source, methods, note)
        # a graph and its module refer to each other: the rejected candidates' weights are not freed otherwise
        gc.collect()
        plan = store_plan(folder, plan)
    _check_choices(folder, plan)
    check_same_plan(folder, plan, with_backend_version(fields, plan.resolved["backend"]))
    job = _job(folder, request, catalogue, source, target, methods, plan, jobs)
    # With several workers it fits none of them, and would only take up memory.
    return Resolved(job, source, tried if tried and tried.placement == job.placement else None)


def _check_choices(folder: Path, plan: Plan) -> None:
    """Refuse a plan whose choices are none that salpipe makes, though its hash is right."""
    chosen = plan.resolved
    try:
        layer = layer_from_json(chosen["layer"])
        numbers = (layer.channels, layer.prefix, *layer.grid, chosen["batch_size"])
        sound = (
            chosen["backend"] in BACKENDS
            and chosen["precision"] in PRECISIONS
            and len(layer.grid) == 2
            and all(type(number) is int and 0 <= number <= 1 << 20 for number in numbers)
            and 1 <= chosen["batch_size"] <= 1 << 14
        )
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise SalpipeError(f"{folder / PLAN}: damaged (its choices are impossible); choose another output folder")


def checked(request: Request) -> Request:
    """The request, its numbers and choices looked over.

    Raises:
        OptionError: naming the option that cannot be.
    """
    for name, low, high in (("shard_size", 1, 1 << 20), ("jpeg_quality", 1, 100), ("max_pixels", 1, 1 << 40)):
        if not low <= getattr(request, name) <= high:
            flag = name.replace("_", "-")
            raise OptionError(f"--{flag} {getattr(request, name)}: use a number from {low} to {high}")
    for name in ("size", "batch_size"):
        value = getattr(request, name)
        if value is not None and not 1 <= value <= 1 << 14:
            raise OptionError(f"--{name.replace('_', '-')} {value}: use a number from 1 to {1 << 14}")
    for name, choices in (("fit", FITS), ("encoding", ("raw", "jpeg"))):
        if getattr(request, name) not in choices:
            raise OptionError(f"--{name} {getattr(request, name)}: choose from {', '.join(choices)}")
    check_target(request.target)
    return request


def check_model(request: Request) -> None:
    """Check the layer and the class that are explained, for which the source model is loaded; it is cached then.

    Raises:
        SalpipeError: as `resolve`.
    """
    if request.layer is None and request.target in ("predicted", "label"):
        return
    source = load_source(request.model, request.weights)
    if request.target != "label":
        parse_target(request.target, len(source.classes), source.class_index)
    if request.layer is not None:
        _layer(request, sized(source, request.size or source.preprocessing.size))


def _layer(request: Request, source: SourceModel) -> Layer:
    try:
        return prepared_layer(source, request.layer)
    except (RuntimeError, AssertionError, ValueError) as error:
        if request.size is None:
            raise
        raise SalpipeError(
            f"--size {request.size}: {request.model} does not take such frames ({str(error).splitlines()[0]:.80})"
        ) from error
    except NoGridError as error:
        if request.size is None:
            raise
        raise SalpipeError(
            f"--size {request.size}: {request.model} has no layer on a grid for such frames; use a larger size"
        ) from error


def _target(request: Request, source: SourceModel, catalogue: Catalogue) -> Target:
    unlabeled = sum(record.label < 0 for record in catalogue.records)
    return parse_target(
        request.target,
        len(source.classes),
        source.class_index,
        catalogue.ids or catalogue.classes,
        unlabeled,
        source.class_named,
    )


def _job(
    folder: Path,
    request: Request,
    catalogue: Catalogue,
    source: SourceModel,
    target: Target,
    methods: Sequence[Method],
    plan: Plan,
    jobs: int,
) -> Job:
    chosen = plan.resolved
    layer = layer_from_json(chosen["layer"])
    size = source.preprocessing.size
    shapes = {m.name: layer.grid if m.level == "layer" else (size, size) for m in methods}
    header = ShardHeader(
        plan.hash,
        plan.provenance,
        catalogue.classes,
        size,
        "jpeg" if request.encoding == "jpeg" else "raw",
        {name: MapShape(target.count, *shape) for name, shape in shapes.items()},
        any(record.boxes for record in catalogue.records),
        any(record.group >= 0 for record in catalogue.records),
    )
    streams = max(1, usable_cores() // jobs) if request.device == "cpu" else 2
    placement = Placement(chosen["backend"], chosen["precision"], request.device, streams)
    return Job(
        str(folder),
        request.model,
        request.weights,
        size,
        layer,
        request.methods,
        target,
        placement,
        chosen["batch_size"],
        header,
        request.fit,
        request.max_pixels,
        request.jpeg_quality,
    )


def _choose(
    fields: dict[str, Any],
    request: Request,
    catalogue: Catalogue,
    source: SourceModel,
    methods: Sequence[Method],
    note: Note,
) -> tuple[Plan, Explainer | None]:
    """Choose what the request leaves open. Nothing here depends on how many jobs will run."""
    layer = _layer(request, source)
    batch = request.batch_size or default_batch(methods, request.device)
    note("choosing back end and precision on the first images")
    frames = _first_frames(catalogue, request, source, FRAMES)
    placement, tried = choose_placement(
        source,
        layer,
        methods,
        frames,
        backend=request.backend,
        precision=request.precision,
        device=request.device,
        streams=usable_cores() if request.device == "cpu" else 2,
        batch=batch,
    )
    resolved = {
        "layer": {**vars(layer), "grid": list(layer.grid)},
        "backend": placement.backend,
        "precision": placement.precision,
        "batch_size": batch,
    }
    fields = with_backend_version(fields, placement.backend)
    versions = dict(fields["versions"])
    p = source.preprocessing
    provenance = {
        "salpipe": versions.pop("salpipe"),
        "source": {
            "model": source.name,
            "weights": source.weights,
            "weights_sha256": source.weights_sha256,
            "layer": layer.name,
            "size": p.size,
            "mean": list(p.mean),
            "std": list(p.std),
            "interpolation": p.interpolation,
            "classes": list(source.classes),
        },
        "methods": {m.name: m.describe() for m in methods},
        "data": {"layout": catalogue.layout, **catalogue.taken},
        "target": request.target,
        "fit": request.fit,
        "max_pixels": request.max_pixels,
        "precision": placement.precision,
        "backend": placement.backend,
        "device": request.device,
        "batch_size": batch,
        "versions": versions,
    }
    if (images := source.training_images()) is not None:
        # the flags say which; null where the source model's file does not record all
        provenance["source"][ENTRY] = len(images) if images.complete else None
    if catalogue.passed_over:
        provenance[PASSED_OVER] = dict(catalogue.passed_over)
    if request.encoding == "jpeg":
        provenance["jpeg_quality"] = request.jpeg_quality
    return Plan(fields, resolved, provenance), tried


def _first_frames(catalogue: Catalogue, request: Request, source: SourceModel, count: int) -> np.ndarray:
    """Frames spread evenly over the catalogue, to try placements on; gray ones where no image can be used."""
    p = source.preprocessing
    frames = []
    for record in catalogue.records[:: max(1, len(catalogue) // count)]:
        try:
            frame, _ = decode_frame(
                record.read(),
                p.size,
                fit=request.fit,
                interpolation=p.interpolation,
                max_pixels=request.max_pixels,
                box=record.box,
            )
        except (BadImageError, OSError):
            continue
        frames.append(frame)
        if len(frames) == count:
            break
    return np.stack(frames) if frames else np.full((1, p.size, p.size, 3), 128, np.uint8)
