"""Dry runs of `generate`: the images, classes, splits and shards of a run, counted, and its cost, estimated."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.execution.gpus import ALL
from saliency_pipeline.generation.checks import checked_catalogue, refusal
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.estimate import estimate
from saliency_pipeline.generation.plan import records_digest, shard_tasks
from saliency_pipeline.generation.remote import RemoteOutput
from saliency_pipeline.images.record import Catalogue, Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.subsets.selection import Grouping, Selection
from saliency_pipeline.text import plural, shown

_NAMED = 10


@dataclass(frozen=True)
class Outline:
    """A catalogue in numbers.

    Attributes:
        root: path of the data set.
        layout: name of its layout.
        images: number of images.
        shards: number of shards that they fill.
        splits: images of each split that has some.
        classes: images of each class, by name, in label order.
        unlabeled: images without a label.
        boxes: images with boxes of their objects.
        maps: images with maps from elsewhere.
        regions: images of which only a region is used.
        records: SHA-256 that identifies the images: the same on every machine for the same selection.
        notes: what was skipped, and why.
        passed_over: number of skipped files and other entries, by kind and reason.
        passes: forward passes of the network per image, a gradient counting as 3; None if they were not estimated.
        seconds: estimated time for all images on this machine; None if it was not estimated, as for few passes.
        refused: why a run into the output folder would be refused; None if it would not be.
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
    maps: int = 0
    passes: float | None = None
    seconds: float | None = None

    def as_text(self) -> str:
        """A few readable lines."""
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
        for count, description in (
            (self.unlabeled, "unlabeled"),
            (self.boxes, "with boxes of their objects"),
            (self.maps, "with maps from elsewhere"),
            (self.regions, "of which a region is cut out"),
        ):
            if count:
                lines.append(f"{plural(count, 'image')} {description}")
        if self.passes is not None:
            time = "" if self.seconds is None else f", about {_duration(self.seconds)} for all on this machine"
            unit = "pass" if self.passes == 1 else "passes"
            lines.append(f"cost: {self.passes:,.6g} forward {unit} per image{time}")
        return "\n".join([*lines, f"digest {self.records[:16]}"])


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 10 * length else f"{seconds / length:,.0f} {unit}"
    return "a second" if seconds < 1.5 else f"{round(seconds)} seconds"


def outline(catalogue: Catalogue, shard_size: int) -> Outline:
    """The images, splits and classes of a catalogue, and the number of shards of `shard_size` images."""
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
        maps=sum(bool(record.map_path) for record in records),
    )


def dry_run(
    data: str | os.PathLike[str] | Catalogue,
    output: str | os.PathLike[str],
    config: GenerateConfig | None = None,
    *,
    layout: str = "auto",
    reading: ReadOptions | None = None,
    selection: Selection | None = None,
    grouping: Grouping | None = None,
    boxes: str | os.PathLike[str] | None = None,
    maps_from: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Outline:
    """Count what `generate` would explain with the same arguments, estimate its cost, and explain nothing.

    Raises:
        SalpipeError: as `generate`, but for what only the source model, the device or the output folder can tell.
    """
    config, progress = config or GenerateConfig(), progress or Progress()
    if config.device == ALL:
        config = replace(config, device="auto")
    remote = RemoteOutput.of(output, (1, 1))
    folder = remote.scratch if remote else Path(output)
    catalogue = checked_catalogue(
        data,
        folder,
        config,
        layout=layout,
        reading=reading,
        selection=selection,
        grouping=grouping,
        boxes=boxes,
        maps_from=maps_from,
        progress=progress,
        dry=True,
    )
    outlined = outline(catalogue, config.shard_size)
    refused = refusal(catalogue, outlined.records, folder, config)
    if refused:
        progress.note(f"without --dry-run this would be refused: {refused}")
    cost = estimate(config, progress)
    return replace(outlined, refused=refused, passes=cost.passes, seconds=cost.seconds(outlined.images))
