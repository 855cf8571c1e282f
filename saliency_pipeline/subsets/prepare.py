"""`prepare`: from the path of a data set to the catalogue of a run: read, deduplicated, selected and split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_pipeline.datasets.box_files import boxes_digest, with_boxes
from saliency_pipeline.datasets.export_file import read_export_file
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.map_files import maps_digest, with_maps
from saliency_pipeline.datasets.remote import read_place
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.progress import Progress
from saliency_pipeline.subsets.duplicates import Policy, dedupe, find_duplicates, group, marked
from saliency_pipeline.subsets.fingerprint import fingerprints
from saliency_pipeline.subsets.group_by import described, groups_by
from saliency_pipeline.subsets.groups import Places, several, united
from saliency_pipeline.subsets.select import select
from saliency_pipeline.subsets.selection import Grouping, Selection
from saliency_pipeline.text import shown


def prepare(
    path: str | os.PathLike[str],
    layout: str = "auto",
    reading: ReadOptions | None = None,
    selection: Selection | None = None,
    grouping: Grouping | None = None,
    *,
    boxes: str | os.PathLike[str] | None = None,
    maps_from: str | os.PathLike[str] | None = None,
    cache: Path | None = None,
    index: Path | None = None,
    pinned: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Catalogue:
    """Read, select and split a data set.

    Duplicates, exact and near, are detected in two cases, at a few milliseconds and 4.2 KB of memory per image. With
    `dedupe` they are removed before anything is sampled, for which all images of the requested classes are compared.
    Otherwise they are kept together (`group_duplicates`), for which only the sampled images are: new splits do not
    divide them, and neither do the folds of training later on. `group_by` keeps further images together, those of one
    person, scene or patient; overlapping groups become one.

    Args:
        path: the data set; or its URL, see `read_place`.
        layout: its layout's name, or `auto`.
        reading: options for reading it.
        selection: classes, images and splits.
        grouping: treatment of duplicates and groups of images.
        boxes: file of boxes of objects, see `datasets.box_files`.
        maps_from: folder of maps that were made elsewhere, see `datasets.map_files`.
        cache: folder that keeps the images' fingerprints for the next run of the same command.
        index: folder that keeps the indexes of remote archives.
        pinned: origin of a remote data set in an earlier run, which must not differ.
        progress: receives notes and progress.

    Raises:
        SalpipeError: the data set cannot be read, or the selection is impossible.
    """
    progress = progress or Progress()
    reading, selection, grouping = reading or ReadOptions(), selection or Selection(), grouping or Grouping()
    catalogue = read_place(path, layout, reading, index=index, pinned=pinned, progress=progress)
    catalogue = whole = with_files(catalogue, boxes, maps_from, progress.note)
    if grouping.dedupe:
        # the sampled classes do not depend on their images, unless `min_per_class` is set
        few = None if selection.min_per_class else selection.num_classes
        catalogue = select(catalogue, Selection(selection.classes, num_classes=few, seed=selection.seed))
        catalogue = dedupe(catalogue, _groups(catalogue, cache, progress), cast(Policy, grouping.dedupe))
        if not len(catalogue):
            raise SalpipeError(
                f"{shown(whole.root)}: --dedupe {grouping.dedupe} leaves no image; 'salpipe audit' shows why"
            )
        catalogue = select(catalogue, replace(selection, classes=()))
    else:
        catalogue = select(catalogue, selection)
    wanted = grouping.group_duplicates
    search = not grouping.dedupe and bool(selection.splits if wanted is None else wanted)
    if search or grouping.group_by is not None:
        groups = _groups(catalogue, cache, progress) if search else np.arange(len(catalogue))
        if duplicates := several(groups)[0]:
            progress.note(f"{duplicates:,} images are duplicates of one another, kept together; see 'salpipe audit'")
        if grouping.group_by is not None:
            groups = united(groups, _by_rule(catalogue, grouping.group_by, progress))
        rest = replace(selection, classes=(), min_per_class=None, num_classes=None)
        catalogue = select(marked(catalogue, groups), rest)
    for line in catalogue.notes[len(whole.notes) :]:
        progress.note(line)
    taken = _taken(reading, selection, grouping)
    if grouping.group_by is not None:
        # readers of the groups need to tell whether they contain duplicates too
        taken |= {"group_by": described(grouping.group_by), "group_duplicates": search}
    taken |= digests(catalogue, boxes is not None, maps_from is not None, progress)
    return replace(catalogue, taken=taken)


def with_files(
    catalogue: Catalogue,
    boxes: str | os.PathLike[str] | None,
    maps_from: str | os.PathLike[str] | None,
    note: Callable[[str], None],
) -> Catalogue:
    """A catalogue with boxes from a file and maps from a folder, where there are such.

    Raises:
        SalpipeError: they cannot be read, or belong to none of the images.
    """
    if boxes is not None:
        catalogue = with_boxes(catalogue, boxes, note)
    if maps_from is not None:
        catalogue = with_maps(catalogue, maps_from, note)
    return catalogue


def digests(catalogue: Catalogue, boxes: bool, maps: bool, progress: Progress) -> dict[str, Any]:
    """Number and SHA-256 of the boxes and maps from elsewhere that the images of a catalogue have, for `taken`."""
    facts: dict[str, Any] = {"boxes": boxes_digest(catalogue.records)} if boxes else {}
    if maps:
        facts["maps"] = maps_digest(catalogue.records, progress)
        if "methods" in facts["maps"]:
            facts["maps"]["provenance"] = read_export_file(catalogue.root).provenance
    return facts


def _groups(catalogue: Catalogue, cache: Path | None, progress: Progress) -> Places:
    """Group number per record, equal for duplicates."""
    duplicates = find_duplicates(fingerprints(catalogue, cache, progress))
    return group(duplicates.pairs, len(catalogue))


def _by_rule(catalogue: Catalogue, rule: str, progress: Progress) -> Places:
    """The group of each record by `--group-by`, -1 for none; notes the number of groups."""
    numbers = groups_by([record.key for record in catalogue.records], rule)
    alone = int((numbers < 0).sum())
    rest = f"; {alone:,} images are in none" if alone else ""
    progress.note(f"--group-by {rule}: {len(np.unique(numbers[numbers >= 0])):,} groups{rest}")
    return numbers


def _taken(reading: ReadOptions, selection: Selection, grouping: Grouping) -> dict[str, Any]:
    """The settings that differ from the defaults, JSON-serializable; not the path of a list of URLs."""
    settings = {**asdict(reading), **asdict(selection)}
    defaults = {**asdict(ReadOptions()), **asdict(Selection()), "list": settings["list"]}
    taken = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if value != defaults[name]
    }
    together = grouping.group_duplicates
    if grouping.dedupe:
        taken["dedupe"] = grouping.dedupe
    elif together is not None and together != bool(selection.splits):
        taken["group_duplicates"] = together
    return taken
