"""Writes what duplicates there are: a page that shows them side by side, and a table. Finding them stands elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.record import ImageRecord, Split
from saliency_pipeline.subsets.duplicates import in_conflict, leaks
from saliency_pipeline.tables import write_table

PAGE = "duplicates.html"
TABLE = "duplicates.csv"

SHOWN_GROUPS, SHOWN_IMAGES, SHOWN_MEMBERS = 200, 600, 12
"""How many groups and images a page shows at most, and how many of each group; the table names all."""

_TEMPLATE = "pairs.html"
_SIDE = 192


@dataclass(frozen=True)
class Member:
    """One image of a group.

    Attributes:
        record: the image.
        label: name of its class; None where it is unlabeled.
        kind: `first` of its group, or how it is a duplicate of another: `exact` or `near`.
        distance: from the image of its group that it is most like, in [0, 1]; 0 where it is exact or first.
    """

    record: ImageRecord
    label: str | None
    kind: str
    distance: float

    @property
    def split(self) -> str | None:
        """Name of its split; None where it has none."""
        return None if self.record.split is Split.NONE else self.record.split.name.lower()


@dataclass(frozen=True)
class Group:
    """Images that are the same picture, in the order of their catalogue; at least two."""

    members: tuple[Member, ...]

    @cached_property
    def conflict(self) -> bool:
        """Whether they are labeled differently."""
        return in_conflict(member.record for member in self.members)

    @cached_property
    def leak(self) -> bool:
        """Whether they lie in different splits."""
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
    """Write `duplicates.html`, one file that needs nothing else, and `duplicates.csv`, a row an image.

    The page shows groups with different labels first, then those across splits, then the others.

    Args:
        output: an existing folder; what it holds of these names is replaced.
        title: of the page.
        facts: names and values of the numbers at its head.
        groups: all there are; the page shows the first `SHOWN_GROUPS` or fewer.
        notes: lines at its end: what could not be looked at.
        near: whether near duplicates were looked for.
        listed: whether they are rows of a list, which has no splits, and no images to be shown.

    Returns:
        Where page and table are.

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
    for name, heading, found in sections:
        cards = []
        for number, group in found:
            if not groups_left or images_left <= 0:
                break
            few = _few(group.members)
            groups_left, images_left = groups_left - 1, images_left - len(few)
            cards.append(_card(number, group, few, not listed))
        shown.append((name, heading, len(found), cards))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / _TEMPLATE).read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        facts=facts,
        sections=shown,
        table=TABLE,
        notes=notes,
        near=near,
        listed=listed,
        total=len(groups),
    )
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(page, text.encode("utf-8", "replace"))
    return page, table


def _few(members: Sequence[Member]) -> list[Member]:
    """The members to show, in order: the first of each label and split before any other."""
    different: dict[tuple[str | None, str | None], int] = {}
    for place, member in enumerate(members):
        different.setdefault((member.label, member.split), place)
    chosen = list(dict.fromkeys([*different.values(), *range(len(members))]))[:SHOWN_MEMBERS]
    return [members[place] for place in sorted(chosen)]


def _card(number: int, group: Group, few: Sequence[Member], pictures: bool) -> dict[str, object]:
    return {
        "number": number,
        "conflict": group.conflict,
        "leak": group.leak,
        "members": list(zip(few, _pictures(few) if pictures else [None] * len(few), strict=True)),
        "images": len(group.members),
        "more": len(group.members) - len(few),
    }


def _pictures(members: Iterable[Member]) -> list[str | None]:
    """Small JPEG images as data URIs; None where one cannot be read any more."""
    found: list[str | None] = []
    for member in members:
        found.append(None)
        with suppress(BadImageError, OSError):
            frame, (height, width) = decode_frame(member.record.read(), _SIDE, fit="pad")
            long = max(height, width)
            rows, columns = (max(1, round(_SIDE * side / long)) for side in (height, width))
            top, left = round((_SIDE - rows) / 2), round((_SIDE - columns) / 2)
            file = io.BytesIO()
            Image.fromarray(frame[top : top + rows, left : left + columns]).save(file, "JPEG", quality=80)
            found[-1] = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return found
