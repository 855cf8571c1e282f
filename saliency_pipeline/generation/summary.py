"""What a plan needs to know of a data set besides its records; small, whatever the number of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saliency_pipeline.generation.background import background_candidates
from saliency_pipeline.generation.plan import identify_images, records_digest, sizes_digest
from saliency_pipeline.images.record import Catalogue, ImageRecord


@dataclass(frozen=True)
class DataSummary:
    """A catalogue without its records.

    Attributes:
        root: the folder or archive of the data set.
        layout: name of its layout.
        classes: names of its classes.
        ids: WordNet ids of the classes; empty for other classes.
        images: number of images.
        unlabeled: number of images without a label.
        records: digest of the records, see `records_digest`.
        sizes: digest of the images' sizes, see `sizes_digest`.
        boxes: whether an image has boxes of its objects.
        groups: whether an image is in a group.
        taken: see `Catalogue`.
        passed_over: see `Catalogue`.
        origin: see `Catalogue`.
        measured: records on whose images backends are measured, spread evenly.
        background: records whose images methods compare with, in the order in which they are tried; empty where no
            method does.
    """

    root: str
    layout: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: int
    unlabeled: int
    records: str
    sizes: str
    boxes: bool
    groups: bool
    taken: Mapping[str, Any] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    measured: tuple[ImageRecord, ...] = ()
    background: tuple[ImageRecord, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """What a plan's hash has of the images."""
        return identify_images(self.classes, self.images, self.records)


def summarize(catalogue: Catalogue, *, measured: int, background: int = 0) -> DataSummary:
    """The summary of a catalogue.

    Args:
        catalogue: the data set.
        measured: number of images that are wanted for measuring; some more are listed, as some may be unusable.
        background: number of records that may be tried for the background.
    """
    records = catalogue.records
    return DataSummary(
        catalogue.root,
        catalogue.layout,
        catalogue.classes,
        catalogue.ids,
        len(records),
        sum(record.label < 0 for record in records),
        records_digest(catalogue),
        sizes_digest(catalogue),
        any(record.boxes for record in records),
        any(record.group >= 0 for record in records),
        catalogue.taken,
        catalogue.passed_over,
        tuple(records[:: max(1, len(records) // measured)]),
        background_candidates(catalogue, background) if background else (),
        catalogue.origin,
    )
