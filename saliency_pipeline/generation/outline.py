"""What a run would explain, told without loading a source model: the answer of a dry run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.plan import (
    Plan,
    Request,
    check_same_plan,
    plan_fields,
    records_digest,
    shard_tasks,
    stored_plan,
    with_backend_version,
)
from saliency_pipeline.images.record import Catalogue, Split
from saliency_pipeline.models.source.registry import EMBEDDED
from saliency_pipeline.models.source.weights import file_sha256
from saliency_pipeline.saliency.methods import find_methods
from saliency_pipeline.shards.schema import is_shard_name
from saliency_pipeline.text import plural, shown

_NAMED = 10


@dataclass(frozen=True)
class Outline:
    """A catalogue in numbers.

    Attributes:
        root: where it was read from.
        layout: the layout it was read as.
        images: how many images there are.
        shards: how many shards they fill.
        splits: images of each split that has some.
        classes: images of each class, by name, in label order.
        unlabeled: images without a label.
        boxes: images of which is known where their object is.
        regions: images of which only a region is meant.
        records: SHA-256 of what is known of all images; the same where and when the same are found again.
        notes: what was passed over, and why.
        passed_over: how many files and other things were passed over, by kind and reason.
        refused: why a run into the output folder would be refused; None where nothing is known against it.
    """

    root: str
    layout: str
    images: int
    shards: int
    splits: dict[str, int]
    classes: dict[str, int]
    unlabeled: int
    boxes: int
    regions: int
    records: str
    notes: tuple[str, ...]
    passed_over: dict[str, int]
    refused: str | None = None

    def as_text(self) -> str:
        """A few lines for people."""
        counts = list(self.classes.values())
        lines = [
            f"{shown(self.root)}: layout {self.layout}, {plural(self.images, 'image')} in "
            f"{plural(len(counts), 'class')}, {plural(self.shards, 'shard')}",
            "splits: " + ", ".join(f"{images:,} {split}" for split, images in self.splits.items()),
        ]
        if counts:
            names = [f"{shown(name)} {images:,}" for name, images in list(self.classes.items())[:_NAMED]]
            more = f", and {len(counts) - _NAMED:,} more" if len(counts) > _NAMED else ""
            least = f"{min(counts):,} to " if min(counts) < max(counts) else ""
            sizes = f"{least}{plural(max(counts), 'image')}"
            lines.append(f"class{'es' if len(counts) > 1 else ''} of {sizes}: {', '.join(names)}{more}")
        for count, what in (
            (self.unlabeled, "unlabeled"),
            (self.boxes, "with boxes of their objects"),
            (self.regions, "of which a region is cut out"),
        ):
            if count:
                lines.append(f"{plural(count, 'image')} {what}")
        return "\n".join([*lines, f"known by {self.records[:16]}"])


def outline(catalogue: Catalogue, shard_size: int) -> Outline:
    """What a catalogue holds, and how many shards of `shard_size` images it fills."""
    records = catalogue.records
    labels = np.fromiter((record.label for record in records), np.int64, len(records))
    splits = np.fromiter((record.split for record in records), np.int64, len(records))
    counts = np.bincount(labels[labels >= 0], minlength=len(catalogue.classes)).tolist()
    return Outline(
        root=catalogue.root,
        layout=catalogue.layout,
        images=len(records),
        shards=len(shard_tasks(catalogue, shard_size)),
        splits={split.name.lower(): int((splits == split).sum()) for split in Split if (splits == split).any()},
        classes=dict(zip(catalogue.classes, counts, strict=True)),
        unlabeled=int((labels < 0).sum()),
        boxes=sum(bool(record.boxes) for record in records),
        regions=sum(record.box is not None for record in records),
        records=records_digest(catalogue),
        notes=catalogue.notes,
        passed_over=dict(catalogue.passed_over),
    )


def refusal(catalogue: Catalogue, outlined: Outline, folder: Path, request: Request) -> str | None:
    """Why a run into a folder would be refused, as far as that is known without a model: it holds another plan.

    Args:
        catalogue: the images.
        outlined: their outline.
        folder: where the run would write.
        request: what it would compute.

    Returns:
        One line that names every difference; None where nothing speaks against it.
    """
    try:
        if (stored := _followed_plan(folder)) is None:
            return None
        named = replace(_as_stored(request), device=str(find_device(request.device)))
        fields = plan_fields(named, catalogue, _weights_sha256(request, stored), outlined.records)
        check_same_plan(folder, stored, with_backend_version(fields, stored.resolved["backend"]))
    except SalpipeError as error:
        return str(error)
    return None


def check_options(folder: Path, request: Request) -> None:
    """Compare what is asked for with the plan of a folder, as far as that is known without images and source model.

    Args:
        folder: where the run would write.
        request: what it would compute.

    Raises:
        PlanMismatchError: the folder holds shards that were made with other options; they are named.
        SalpipeError: the plan cannot be read, or a method is unknown.
    """
    if stored := _followed_plan(folder):
        asked = asdict(_as_stored(request))
        # only the model says which weights these are, and only the hardware what `auto` is
        known = {name: value for name, value in asked.items() if name not in ("weights", "device")}
        check_same_plan(folder, stored, {**stored.fields, **known, "methods": list(known["methods"])})


def _followed_plan(folder: Path) -> Plan | None:
    """The plan of a folder, if there are shards of it."""
    try:
        if not any(is_shard_name(path.name) for path in folder.iterdir()):
            return None
    except OSError:
        return None
    return stored_plan(folder)


def _as_stored(request: Request) -> Request:
    """A request with the names under which its model and methods are stored."""
    model = request.model if request.model == f"timm/{EMBEDDED}" else request.model.removeprefix("timm/")
    return replace(request, model=model, methods=tuple(method.name for method in find_methods(request.methods)))


def _weights_sha256(request: Request, stored: Plan) -> str:
    """The hash of the weights asked for: that of the plan where nothing says that they are others."""
    known = str(stored.fields.get("weights_sha256"))
    if request.weights not in ("default", "none"):
        try:
            return file_sha256(Path(request.weights))
        except OSError as error:
            raise SalpipeError(f"{request.weights}: {error.strerror}; check its permissions") from error
    then = str(stored.provenance["source"]["weights"])
    same = then == request.weights or (request.weights == "default" and then in ("embedded", "trained"))
    return known if same else request.weights
