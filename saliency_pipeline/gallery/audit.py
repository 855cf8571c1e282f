"""Audit of a data set: searches it for duplicates and reports them as a page and a table."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.nesting import refuse_among_images, refuse_nesting
from saliency_pipeline.datasets.pubfig_list import duplicates_in_list, read_list
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import make_output
from saliency_pipeline.gallery.pairs import PAGE, TABLE, Group, Member, write_pairs
from saliency_pipeline.images.keys import natural
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.subsets import THRESHOLD
from saliency_pipeline.subsets.duplicates import Duplicates, find_duplicates, group, members
from saliency_pipeline.subsets.fingerprint import fingerprints
from saliency_pipeline.text import shown

CACHE = "fingerprints"
"""Subfolder of the output with the fingerprints that need not be computed again."""


@dataclass(frozen=True)
class AuditReport:
    """Result of an audit.

    Attributes:
        page: the HTML page.
        table: the CSV file that lists every image of every group.
        images: number of images.
        unreadable: images that cannot be read and were not compared.
        exact: images with the same bytes as an earlier one.
        near: other duplicates of an earlier image; None if only bytes were compared.
        groups: number of groups of duplicates.
        largest: images of the largest group; 0 without groups.
        conflicts: groups whose labels differ.
        leaks: groups in more than one split.
        leaked: validation and test images of which training has a duplicate.
        across: number of groups that two splits share, per pair of splits such as `train-test`.
        passed_over: number of skipped files and folders of the data set by kind and reason.
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
    """Search for exact and near duplicates; write `duplicates.html` and `duplicates.csv`.

    Whole images are compared, even if a record is a region of one. Fingerprints are cached in the output: the same
    call resumes an interrupted one.

    Args:
        catalogue: the images.
        output: folder to write to, created if missing.
        threshold: maximum distance of near duplicates, see `find_duplicates`.
        exact_only: compare bytes only, without decoding.
        title: of the page; the name of the catalogue's root by default.
        progress: receives progress.

    Raises:
        SalpipeError: the output is among the images, holds shards or cannot be written, or the threshold is invalid.

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
    _make_output(output, catalogue.root)
    prints = fingerprints(catalogue, output / CACHE, progress, bytes_only=exact_only)
    notes = Notes()
    for place, reason in prints.reasons.items():
        notes.add(f"{catalogue.records[place].key} ({reason})", "cannot be read")
    if len(notes):
        progress.note(f"{len(notes):,} of {len(catalogue):,} images cannot be read and are not compared; see {PAGE}")
    progress.start(1, "search", "comparing images")
    duplicates = find_duplicates(prints, threshold=threshold)
    progress.stop()
    return _report(catalogue, duplicates, output, title, notes, exact_only=exact_only)


def audit_list(
    path: Path | str, output: Path | str, *, title: str | None = None, progress: Progress | None = None
) -> AuditReport:
    """Search a list of PubFig for exact duplicates by its md5 column, without any image.

    Args:
        path: `dev_urls.txt` or `eval_urls.txt` of v1.2.
        output: folder to write to, created if missing.
        title: of the page; the list's name by default.
        progress: receives notes on bad rows.

    Returns:
        Report in which `images` are rows, and keys are `<person>/<imagenum>`.

    Raises:
        SalpipeError: not a list, a list without md5, or the output cannot be written.
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
    duplicates = Duplicates(
        np.array(sorted(pairs), np.int64).reshape(-1, 2), np.ones(len(pairs), np.bool_), np.zeros(len(pairs))
    )
    catalogue = Catalogue(os.path.abspath(path), records, tuple(people), layout="list")
    output = Path(output)
    _make_output(output, path)
    return _report(catalogue, duplicates, output, title, notes, exact_only=True, listed=True)


def _make_output(output: Path, data: Path | str) -> None:
    refuse_among_images(output, data)
    refuse_shards(output)
    make_output(output)


def _report(
    catalogue: Catalogue,
    duplicates: Duplicates,
    output: Path,
    title: str | None,
    notes: Notes,
    *,
    exact_only: bool,
    listed: bool = False,
) -> AuditReport:
    groups = _groups(catalogue, duplicates)
    exact = int(duplicates.exact.sum())
    splits = [Counter(member.record.split for member in each.members) for each in groups]
    report = AuditReport(
        page=output / PAGE,
        table=output / TABLE,
        images=len(catalogue),
        unreadable=0 if listed else len(notes),
        exact=exact,
        near=None if exact_only else sum(len(each.members) - 1 for each in groups) - exact,
        groups=len(groups),
        largest=max((len(each.members) for each in groups), default=0),
        conflicts=sum(each.conflict for each in groups),
        leaks=sum(each.leak for each in groups),
        leaked=sum(each[Split.VALIDATION] + each[Split.TEST] for each in splits if each[Split.TRAIN]),
        across={
            f"{first.name}-{second.name}".lower(): sum(1 for each in splits if each[first] and each[second])
            for first, second in combinations((Split.TRAIN, Split.VALIDATION, Split.TEST), 2)
        },
        passed_over=dict(catalogue.passed_over),
    )
    facts = {
        "Rows" if listed else "Images": report.images,
        "Exact duplicates": report.exact,
        "Near duplicates": report.near,
        "Groups": report.groups,
        "With different labels": report.conflicts,
        "Across splits": report.leaks,
        "Seen in training": report.leaked,
        "Unreadable": report.unreadable,
    }
    if listed:
        facts = {name: facts[name] for name in ("Rows", "Exact duplicates", "Groups", "With different labels")}
    write_pairs(
        output,
        title or os.path.basename(catalogue.root),
        [(name, "not searched for" if value is None else f"{value:,}") for name, value in facts.items()],
        groups,
        notes.lines(),
        near=not exact_only,
        listed=listed,
    )
    return report


def _groups(catalogue: Catalogue, duplicates: Duplicates) -> list[Group]:
    """Groups of duplicates, with the kind and distance of every image."""
    nearest = np.full(len(catalogue), np.inf)
    for side in (0, 1):
        np.minimum.at(nearest, duplicates.pairs[~duplicates.exact, side], duplicates.distances[~duplicates.exact])
    exact = np.zeros(len(catalogue), np.bool_)
    exact[duplicates.pairs[duplicates.exact, 1]] = True
    nearest[exact] = 0

    def member(place: int, first: bool) -> Member:
        record = catalogue.records[place]
        label = catalogue.classes[record.label] if record.label >= 0 else None
        kind = "first" if first else "exact" if exact[place] else "near"
        return Member(record, label, kind, 0.0 if first else float(nearest[place]))

    return [
        Group(tuple(member(place, place == places[0]) for place in places.tolist()))
        for places in members(group(duplicates.pairs, len(catalogue)))
    ]
