"""Writes the duplicates of a data set: a page that shows them side by side, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.pictures import data_uri, jpeg
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.record import ImageRecord, Split
from saliency_pipeline.subsets.duplicates import in_conflict, leaks
from saliency_pipeline.tables import write_table

PAGE = "duplicates.html"
TABLE = "duplicates.csv"

SHOWN_GROUPS, SHOWN_IMAGES, SHOWN_MEMBERS = 200, 600, 12
"""Maximum number of groups and of images of a page, and of images per group; the table lists all."""

_SIDE = 192


@dataclass(frozen=True)
class Member:
    """One image of a group.

    Attributes:
        record: the image.
        label: name of its class; None if unlabeled.
        kind: `first` of its group, or an `exact` or `near` duplicate of another.
        distance: to the most similar image of its group, in [0, 1]; 0 if exact or first.
    """

    record: ImageRecord
    label: str | None
    kind: str
    distance: float

    @property
    def split(self) -> str | None:
        """Name of its split; None without one."""
        return None if self.record.split is Split.NONE else self.record.split.name.lower()


@dataclass(frozen=True)
class Group:
    """Images that are the same picture, in the order of their catalogue; at least two."""

    members: tuple[Member, ...]

    @cached_property
    def conflict(self) -> bool:
        """True if their labels differ."""
        return in_conflict(member.record for member in self.members)

    @cached_property
    def leak(self) -> bool:
        """True if they are in different splits."""
        return leaks(member.record for member in self.members)


def write_pairs(
    output: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    groups: Sequence[Group],
    notes: Sequence[str] = (),
    *,
    near: bool = True,
    listed: bool = False,
) -> tuple[Path, Path]:
    """Write `duplicates.html`, which is self-contained, and `duplicates.csv`, one row per image.

    The page shows groups with different labels first, then those across splits, then the others. The rows of a list
    (`listed`) have neither splits nor images; `near` is true if near duplicates were searched for.

    Returns:
        Paths of page and table.

    Raises:
        SalpipeError: the folder cannot be written.
    """
    numbered = list(enumerate(groups, 1))
    header = ("group", "kind", "distance", "key", "label", "split")
    rows = (
        (number, member.kind, float(member.distance), member.record.key, member.label or "", member.split or "")
        for number, group in numbered
        for member in group.members
    )
    page, table = output / PAGE, output / TABLE
    write_table(table, header, rows)
    sections = [
        ("conflicts", "Different labels", [each for each in numbered if each[1].conflict]),
        ("leaks", "Across splits", [each for each in numbered if each[1].leak and not each[1].conflict]),
        ("others", "Other duplicates", [each for each in numbered if not each[1].conflict and not each[1].leak]),
    ]
    if listed:
        sections = [section for section in sections if section[0] != "leaks"]
    groups_left, images_left = SHOWN_GROUPS, SHOWN_IMAGES
    shown = []
    for name, heading, of_section in sections:
        cards = []
        for number, group in of_section:
            if not groups_left or images_left <= 0:
                break
            few = _few(group.members)
            groups_left, images_left = groups_left - 1, images_left - len(few)
            cards.append((number, group, [(member, None if listed else _picture(member)) for member in few]))
        shown.append((name, heading, len(of_section), cards))
    pages.write_page(
        page,
        pages.environment(__package__),
        "pairs.html",
        title=title,
        facts=facts,
        sections=shown,
        table=TABLE,
        notes=notes,
        near=near,
        listed=listed,
        total=len(groups),
    )
    return page, table


def _few(members: Sequence[Member]) -> list[Member]:
    """The members to show, in order; the first of each label and split has priority."""
    different: dict[tuple[str | None, str | None], int] = {}
    for place, member in enumerate(members):
        different.setdefault((member.label, member.split), place)
    chosen = list(dict.fromkeys([*different.values(), *range(len(members))]))[:SHOWN_MEMBERS]
    return [members[place] for place in sorted(chosen)]


def _picture(member: Member) -> str | None:
    """A small JPEG image as a data URI; None if the image cannot be read any more."""
    try:
        frame, (height, width) = decode_frame(member.record.read(), _SIDE, fit="pad")
    except (BadImageError, OSError):
        return None
    rows, columns = (max(1, round(_SIDE * side / max(height, width))) for side in (height, width))
    top, left = round((_SIDE - rows) / 2), round((_SIDE - columns) / 2)
    return data_uri(jpeg(frame[top : top + rows, left : left + columns]))
