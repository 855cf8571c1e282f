"""From a path to the catalogue of a run: read, freed of duplicates, selected and split. Each step stands elsewhere."""

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
    """The catalogue of a run.

    Duplicates, exact and near, are looked for in two cases, at a few milliseconds and 4.2 KB of memory an image. With
    a `policy` they are left out before anything is drawn, for which all images of the classes wanted are looked at.
    Without one they are kept `together`, for which only the images drawn are: records know their duplicates, new splits
    do not divide them, and neither do the folds of training later on. `group_by` keeps further images together, those
    of one person, scene or patient; with duplicates among them the groups become one.

    Args:
        path: the data set.
        layout: its layout's name, or `auto`.
        reading: how it is read.
        selection: what is taken of it.
        policy: which duplicates are left out; None for none.
        together: whether duplicates are kept together; None for where new splits are dealt.
        group_by: which images are of one group, see `grouping.groups_by`; None for no groups but those of duplicates.
        cache: folder where what was seen of images is kept, for the next run of the same command.
        progress: told what is found and passed over, and how far it is.

    Raises:
        SalpipeError: the data set cannot be read, or the selection not be made.
    """
    progress = progress or Progress()
    reading, selection = reading or ReadOptions(), selection or Selection()
    catalogue = whole = read_images(path, layout, reading, progress.note)
    if policy:
        # classes are drawn by lot whatever images they have, unless they need a number of them
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
        if twins := several(groups)[0]:
            progress.note(f"{twins:,} images are duplicates of one another, kept together: 'salpipe audit' shows them")
        if group_by is not None:
            groups = united(groups, _by_rule(catalogue, group_by, progress))
        rest = replace(selection, classes=(), min_per_class=None, num_classes=None)
        catalogue = select(marked(catalogue, groups), rest)
    for line in catalogue.notes[len(whole.notes) :]:
        progress.note(line)
    taken = _taken(reading, selection, policy, together)
    if group_by is not None:
        # whoever reads the groups later must know whether they are of duplicates too
        taken |= {"group_by": described(group_by), "group_duplicates": search}
    return replace(catalogue, taken=taken)


def _groups(catalogue: Catalogue, cache: Path | None, progress: Progress) -> Places:
    """A number for each record, equal for duplicates."""
    found = find_duplicates(fingerprints(catalogue, cache, progress))
    return group(found.pairs, len(catalogue))


def _by_rule(catalogue: Catalogue, rule: str, progress: Progress) -> Places:
    """The group of each record by `--group-by`, -1 for none, and a note of how many there are."""
    numbers = groups_by([record.key for record in catalogue.records], rule)
    alone = int((numbers < 0).sum())
    rest = f"; {alone:,} images are in none" if alone else ""
    progress.note(f"--group-by {rule}: {len(np.unique(numbers[numbers >= 0])):,} groups{rest}")
    return numbers


def _taken(reading: ReadOptions, selection: Selection, policy: Policy | None, together: bool | None) -> dict[str, Any]:
    """What was asked for besides the defaults, as JSON can hold it. Where a list of URLs lies says nothing."""
    asked = asdict(reading) | asdict(selection)
    usual = asdict(ReadOptions()) | asdict(Selection()) | {"list": asked["list"]}
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    taken = {name: value for name, value in found.items() if asked[name] != usual[name]}
    if policy:
        taken["dedupe"] = policy
    elif together is not None and together != bool(selection.splits):
        taken["group_duplicates"] = together
    return taken
