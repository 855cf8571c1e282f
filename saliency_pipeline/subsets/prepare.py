"""From a path to the catalogue of a run: read, deduplicate, select and split."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.progress import Progress
from saliency_pipeline.subsets.duplicates import Policy, dedupe, find_duplicates, group, marked
from saliency_pipeline.subsets.fingerprint import fingerprints
from saliency_pipeline.subsets.grouping import described, groups_by
from saliency_pipeline.subsets.groups import Places, several, united
from saliency_pipeline.subsets.select import Selection, select
from saliency_pipeline.text import shown


def prepare(
    path: str | os.PathLike[str],
    layout: str = "auto",
    reading: ReadOptions | None = None,
    selection: Selection | None = None,
    *,
    policy: Policy | None = None,
    together: bool | None = None,
    group_by: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Catalogue:
    """Read, deduplicate, select and split the images of a data set.

    Exact and near duplicates are searched for in two cases, at a few milliseconds and 4.2 KB of memory per image. With
    a `policy` they are removed before anything is sampled, so that all images of the classes are fingerprinted.
    Without one they are kept `together`, for which only the selected images are: records have their group, and neither
    new splits nor the folds of training divide it. `group_by` keeps further images together, those of one person,
    scene or patient; groups that share duplicates are merged.

    Args:
        path: the data set.
        layout: name of its layout, or `auto`.
        reading: options of its reader.
        selection: classes, images and splits.
        policy: duplicates to remove; None for none.
        together: keep duplicates together; None for only where there are new splits.
        group_by: rule that groups images, see `grouping.groups_by`; None for groups of duplicates alone.
        cache: folder of fingerprints for the next run of the same command.
        progress: receives notes and progress.

    Raises:
        SalpipeError: the data set cannot be read, or the selection is impossible.
    """
    progress = progress or Progress()
    reading, selection = reading or ReadOptions(), selection or Selection()
    catalogue = whole = read_images(path, layout, reading, progress.note)
    if policy:
        # the sampled classes do not depend on their images, unless `min_per_class` is set
        few = None if selection.min_per_class else selection.num_classes
        catalogue = select(catalogue, Selection(selection.classes, num_classes=few, seed=selection.seed))
        catalogue = dedupe(catalogue, _groups(catalogue, cache, progress), policy)
        if not len(catalogue):
            raise SalpipeError(f"{shown(whole.root)}: --dedupe {policy} leaves no image; 'salpipe audit' shows why")
        catalogue = select(catalogue, replace(selection, classes=()))
    else:
        catalogue = select(catalogue, selection)
    search = not policy and bool(selection.splits if together is None else together)
    if search or group_by is not None:
        groups = _groups(catalogue, cache, progress) if search else np.arange(len(catalogue))
        if duplicates := several(groups)[0]:
            progress.note(f"{duplicates:,} images are duplicates of one another, kept together; see 'salpipe audit'")
        if group_by is not None:
            groups = united(groups, _by_rule(catalogue, group_by, progress))
        rest = replace(selection, classes=(), min_per_class=None, num_classes=None)
        catalogue = select(marked(catalogue, groups), rest)
    for line in catalogue.notes[len(whole.notes) :]:
        progress.note(line)
    taken = _taken(reading, selection, policy, together)
    if group_by is not None:
        # readers of the groups need to know whether they include duplicates
        taken |= {"group_by": described(group_by), "group_duplicates": search}
    return replace(catalogue, taken=taken)


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


def _taken(reading: ReadOptions, selection: Selection, policy: Policy | None, together: bool | None) -> dict[str, Any]:
    """Options other than the defaults, JSON-serializable, without the path of a list of URLs."""
    asked = asdict(reading) | asdict(selection)
    usual = asdict(ReadOptions()) | asdict(Selection()) | {"list": asked["list"]}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    taken = {name: value for name, value in values.items() if asked[name] != usual[name]}
    if policy:
        taken["dedupe"] = policy
    elif together is not None and together != bool(selection.splits):
        taken["group_duplicates"] = together
    return taken
