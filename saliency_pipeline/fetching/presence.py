"""Comparison of a tree of PubFig with its list: present, damaged, wrong and missing images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.pubfig import numbered
from saliency_pipeline.datasets.pubfig_list import ListedFace, of_people, read_list
from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.keys import natural
from saliency_pipeline.images.record import ImageRecord
from saliency_pipeline.progress import Progress

FEW = 10
"""People with fewer images are listed: they cannot be split into training, validation and test."""

_NAMED = 12


@dataclass(frozen=True)
class PresenceReport:
    """Numbers of rows of a list by the state of their files in a tree.

    Attributes:
        listed: rows of the list; the sum of the next four.
        present: the file has the md5 of the list, or can be decoded if the list has none.
        wrong_md5: there is an image of another md5: another picture, or the same saved again.
        damaged: the file cannot be read or decoded.
        missing: there is no file.
        duplicated: rows among those present whose file has the content of an earlier one's.
        unlisted: files of the tree that are not in the list.
        people: people of the list.
        few_below: threshold of `few`.
        few: people with fewer images present, and their numbers.
        notes: one line per skipped row of the list.
    """

    listed: int
    present: int
    wrong_md5: int
    damaged: int
    missing: int
    duplicated: int
    unlisted: int
    people: int
    few_below: int = FEW
    few: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """One line, and a second one if people have too few images."""
        counts = (
            f"{self.listed:,} listed: {self.present:,} present ({self.duplicated:,} duplicated), {self.wrong_md5:,} "
            f"wrong md5, {self.damaged:,} damaged, {self.missing:,} missing"
        )
        if not self.few:
            return counts
        named = ", ".join(f"{person} {count}" for person, count in list(self.few.items())[:_NAMED])
        more = f" and {len(self.few) - _NAMED:,} more" if len(self.few) > _NAMED else ""
        few = f"{len(self.few):,} of {self.people:,} people have fewer than {self.few_below:,} images"
        return f"{counts}\n{few}: {named}{more}"


def presence(
    rows: Sequence[ListedFace],
    folder: str | os.PathLike[str],
    *,
    few_below: int = FEW,
    progress: Progress | None = None,
) -> PresenceReport:
    """Compare a tree with the list it was downloaded from.

    Every file, `<person>/<imagenum>.<suffix>`, is read and hashed; one of the right md5 is not decoded.

    Raises:
        SalpipeError: a folder of the tree cannot be read.
    """
    progress = progress or Progress()
    files = numbered(folder, Notes())
    counts: Counter[str] = Counter()
    had = dict.fromkeys(sorted({row.person for row in rows}, key=natural), 0)
    contents: set[str] = set()
    progress.start(len(rows), "image", "checking")
    try:
        for row in rows:
            state, md5 = _state(row, files.pop((row.person, row.number), None))
            counts[state] += 1
            if state == "present":
                had[row.person] += 1
                counts["duplicated"] += md5 in contents
                contents.add(md5)
            progress.advance(1)
    finally:
        progress.stop()
    return PresenceReport(
        listed=len(rows),
        present=counts["present"],
        wrong_md5=counts["wrong_md5"],
        damaged=counts["damaged"],
        missing=counts["missing"],
        duplicated=counts["duplicated"],
        unlisted=len(files),
        people=len(had),
        few_below=few_below,
        few=too_few(had, few_below),
    )


def check_list(
    listed: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    people: Sequence[str] = (),
    few_below: int = FEW,
    progress: Progress | None = None,
) -> PresenceReport:
    """`presence` of a list that is read from its file.

    Raises:
        SalpipeError: the list or a folder cannot be read, or a name is not in the list.
    """
    notes = Notes()
    rows = of_people(read_list(listed, notes), people, listed)
    return replace(presence(rows, folder, few_below=few_below, progress=progress), notes=notes.lines())


def too_few(had: dict[str, int], below: int) -> dict[str, int]:
    """The people with fewer images than `below`."""
    return {person: count for person, count in had.items() if count < below}


def _state(row: ListedFace, path: str | None) -> tuple[str, str]:
    """State of a row's file, and its md5."""
    if path is None:
        return "missing", ""
    try:
        data = ImageRecord("", path).read()
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if row.md5 == md5:
            return "present", md5
        # imports torch, which files of the right md5 do not need
        from saliency_pipeline.images.decode import decode_frame

        decode_frame(data, 8)
    except (OSError, BadImageError):
        return "damaged", ""
    return ("wrong_md5" if row.md5 else "present"), md5
