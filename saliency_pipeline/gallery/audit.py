"""`audit`: looks a data set through for duplicates and reports them. How they are found and drawn stands elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.nesting import refuse_among_images, refuse_nesting
from saliency_pipeline.datasets.notes import Notes
from saliency_pipeline.datasets.pubfig_list import duplicates_in_list, read_list
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import make_output
from saliency_pipeline.gallery.pairs import PAGE, Group, Member, write_pairs
from saliency_pipeline.images.keys import natural
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.subsets import THRESHOLD
from saliency_pipeline.subsets.duplicates import Duplicates, find_duplicates, group, members
from saliency_pipeline.subsets.fingerprint import fingerprints
from saliency_pipeline.text import shown

CACHE = "fingerprints"
"""Folder, within the output, of what need not be looked at again."""


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        page: the HTML page.
        table: the CSV file that names every image of every group.
        images: how many there are.
        unreadable: how many of them could not be read, and were compared with none.
        exact: how many have the same bytes as one before them.
        near: how many are duplicates of one before them otherwise; None where bytes alone were compared.
        groups: how many groups of duplicates there are.
        largest: images of the largest group; 0 where there is none.
        conflicts: groups whose labels differ.
        leaks: groups that lie in more than one split.
        leaked: images of validation or test of which training holds a duplicate.
        across: for every two splits the groups that lie in both, such as `train-test`.
        passed_over: how many files and other things of the data set were passed over, by kind and reason.
    """

    page: Path
    table: Path
    images: int
    unreadable: int
    exact: int
    near: int | None
    groups: int
    largest: int
    conflicts: int
    leaks: int
    leaked: int
    across: dict[str, int]
    passed_over: dict[str, int]


def audit(
    catalogue: Catalogue,
    output: Path | str,
    *,
    threshold: float = THRESHOLD,
    exact_only: bool = False,
    title: str | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Look for exact and near duplicates; write `duplicates.html` and `duplicates.csv`.

    Whole images are compared, also where a record means a region of one. The folder `fingerprints` in the output
    keeps what was computed: the same call goes on where it was interrupted.

    Args:
        catalogue: the images.
        output: folder to write to, made where it is missing.
        threshold: the greatest distance of near duplicates, see `find_duplicates`.
        exact_only: compare bytes alone, without decoding.
        title: of the page; the name of the catalogue's root by default.
        progress: told how far it is.

    Returns:
        What was found.

    Raises:
        SalpipeError: the output lies among the images, holds shards or cannot be written, or the threshold is none.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from saliency_pipeline.datasets.folder import read_folder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("cat", "dog"):
        ...         Path(root, "photos", name).mkdir(parents=True)
        ...         Image.linear_gradient("L").save(Path(root, "photos", name, "1.png"))
        ...     report = audit(read_folder(Path(root, "photos")), Path(root, "audit"))
        >>> report.exact, report.conflicts
        (1, 1)
    """
    output, progress = Path(output), progress or Progress()
    refuse_nesting(Path(catalogue.root), output)
    _made(output, catalogue.root)
    looked_at = fingerprints(catalogue, output / CACHE, progress, bytes_only=exact_only)
    notes = Notes()
    for place, reason in looked_at.reasons.items():
        notes.add(f"{catalogue.records[place].key} ({reason})", "cannot be read")
    if len(notes):
        progress.note(
            f"{len(notes):,} of {len(catalogue):,} images cannot be read and are compared with none; see {PAGE}"
        )
    progress.start(1, "search", "comparing images")
    found = find_duplicates(looked_at, threshold=threshold)
    progress.stop()
    return _report(catalogue, found, output, title, notes, exact_only=exact_only)


def audit_list(
    path: Path | str, output: Path | str, *, title: str | None = None, progress: Progress | None = None
) -> AuditReport:
    """Look for exact duplicates in a list of PubFig, by its column of md5, without any image.

    Args:
        path: `dev_urls.txt` or `eval_urls.txt` of v1.2.
        output: folder to write to, made where it is missing.
        title: of the page; the list's name by default.
        progress: told of bad rows.

    Returns:
        What was found; `images` are rows, keys are `<person>/<imagenum>`.

    Raises:
        SalpipeError: it is no list, one without md5, or the output cannot be written.
    """
    notes = Notes()
    rows = read_list(path, notes)
    if all(row.md5 is None for row in rows):
        raise SalpipeError(f"{shown(os.fspath(path))}: lists no md5; give a list of PubFig v1.2, or a folder of images")
    for line in notes.lines():
        (progress or Progress()).note(line)
    people = sorted({row.person for row in rows}, key=natural)
    labels = {person: label for label, person in enumerate(people)}
    records = [ImageRecord(f"{row.person}/{row.number}", row.url, labels[row.person], box=row.box) for row in rows]
    places = {row.line: place for place, row in enumerate(rows)}
    pairs = [(places[same[0].line], places[row.line]) for same in duplicates_in_list(rows) for row in same[1:]]
    found = Duplicates(
        np.array(sorted(pairs), np.int64).reshape(-1, 2), np.ones(len(pairs), np.bool_), np.zeros(len(pairs))
    )
    catalogue = Catalogue(os.path.abspath(path), records, tuple(people), layout="list")
    output = Path(output)
    _made(output, path)
    return _report(catalogue, found, output, title, notes, exact_only=True, listed=True)


def _made(output: Path, data: Path | str) -> None:
    refuse_among_images(output, data)
    refuse_shards(output)
    make_output(output)


def _report(
    catalogue: Catalogue,
    found: Duplicates,
    output: Path,
    title: str | None,
    notes: Notes,
    *,
    exact_only: bool,
    listed: bool = False,
) -> AuditReport:
    groups = _groups(catalogue, found)
    exact = int(found.exact.sum())
    near = None if exact_only else sum(len(each.members) - 1 for each in groups) - exact
    conflicts = sum(each.conflict for each in groups)
    leaks = sum(each.leak for each in groups)
    held = [Counter(member.record.split for member in each.members) for each in groups]
    leaked = sum(each[Split.VALIDATION] + each[Split.TEST] for each in held if each[Split.TRAIN])
    across = {
        f"{first.name}-{second.name}".lower(): sum(1 for each in held if each[first] and each[second])
        for first, second in combinations((Split.TRAIN, Split.VALIDATION, Split.TEST), 2)
    }
    unreadable = 0 if listed else len(notes)
    facts = {
        "Rows" if listed else "Images": len(catalogue),
        "Exact duplicates": exact,
        "Near duplicates": near,
        "Groups": len(groups),
        "With different labels": conflicts,
        "Across splits": leaks,
        "Seen in training": leaked,
        "Unreadable": unreadable,
    }
    if listed:
        facts = {name: facts[name] for name in ("Rows", "Exact duplicates", "Groups", "With different labels")}
    page, table = write_pairs(
        output,
        title or os.path.basename(catalogue.root),
        [(name, "not looked for" if value is None else f"{value:,}") for name, value in facts.items()],
        groups,
        notes.lines(),
        near=not exact_only,
        listed=listed,
    )
    return AuditReport(
        page=page,
        table=table,
        images=len(catalogue),
        unreadable=unreadable,
        exact=exact,
        near=near,
        groups=len(groups),
        largest=max((len(each.members) for each in groups), default=0),
        conflicts=conflicts,
        leaks=leaks,
        leaked=leaked,
        across=across,
        passed_over=dict(catalogue.passed_over),
    )


def _groups(catalogue: Catalogue, found: Duplicates) -> list[Group]:
    """The groups that the pairs make, and of each image how it is a duplicate of another."""
    nearest = np.full(len(catalogue), np.inf)
    for side in (0, 1):
        np.minimum.at(nearest, found.pairs[~found.exact, side], found.distances[~found.exact])
    exact = np.zeros(len(catalogue), np.bool_)
    exact[found.pairs[found.exact, 1]] = True
    nearest[exact] = 0

    def member(place: int, first: bool) -> Member:
        record = catalogue.records[place]
        label = catalogue.classes[record.label] if record.label >= 0 else None
        kind = "first" if first else "exact" if exact[place] else "near"
        return Member(record, label, kind, 0.0 if first else float(nearest[place]))

    return [
        Group(tuple(member(place, place == places[0]) for place in places.tolist()))
        for places in members(group(found.pairs, len(catalogue)))
    ]
