"""PubFig's lists of faces with person, number, URL, rectangle and md5."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO

from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Box
from saliency_pipeline.text import shown

MAX_LIST_BYTES, MAX_LINES = 64 * 2**20, 2**19
"""The longest list, that of the evaluation set, has 6 MB and 42,461 rows."""

_MAX_NAME_BYTES = 200
_NUMBER = re.compile(r"[0-9]{1,9}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_RECT = re.compile(r"\s*,\s*".join([r"\s*(-?[0-9]{1,6})"] * 4) + r"\s*")


@dataclass(frozen=True, slots=True)
class ListedFace:
    """One row of a list.

    Attributes:
        person: the name, its words separated by single spaces.
        number: the image's number, `imagenum`; a person's numbers are not contiguous.
        url: the image's URL.
        box: the face, in pixels of the original image; may extend beyond its borders. None if the list has none that
            can lie within an image.
        md5: md5 of the original file, 32 lower-case digits; None in lists before v1.2.
        line: line number, from 1.
    """

    person: str
    number: int
    url: str
    box: Box | None
    md5: str | None
    line: int


def person_name(name: str) -> str:
    """A name in the form used for comparison: words separated by single spaces, composed letters.

    >>> person_name("Sarah_Michelle_Gellar"), person_name(" Shakira ")
    ('Sarah Michelle Gellar', 'Shakira')
    """
    return " ".join(unicodedata.normalize("NFC", name.replace("_", " ")).split())


def read_list(path: str | os.PathLike[str], notes: Notes) -> tuple[ListedFace, ...]:
    r"""Read `dev_urls.txt` or `eval_urls.txt` of PubFig v1.0, v1.1 or v1.2, also a truncated or damaged copy.

    Lines that begin with '#' are comments, the others have the columns person, imagenum, url, rect and, from v1.2 on,
    md5sum, separated by tabs; the majority of rows decides. Invalid rows are noted by line and skipped. A truncated row
    is invalid, but without md5sum a cut within the last corner of the last rect cannot be detected.

    Source: the lists at https://www.cs.columbia.edu/CAVE/databases/pubfig/

    Args:
        path: the list.
        notes: receives invalid rows, rows that repeat a person's number, and rects out of order or without area.

    Returns:
        The rows in the list's order; a person's numbers are unique.

    Raises:
        SalpipeError: the list cannot be read, exceeds 64 MB or half a million lines, or has no valid row.

    Example:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile("w+", suffix="_urls.txt") as file:
        ...     _ = file.write("# PubFig\nBeyonce Knowles\t7\thttp://host/a.jpg\t-2,10,98,110\nnobody\n")
        ...     file.flush()
        ...     rows = read_list(file.name, notes := Notes())
        >>> rows[0].person, rows[0].number, rows[0].box, len(notes)
        ('Beyonce Knowles', 7, (-2, 10, 98, 110), 1)
    """
    name = os.path.basename(path)
    # read twice, since short lines take fifty times as much in memory
    widths = Counter(line.count("\t") + 1 for _, line in _lines(path))
    columns = 5 if widths[5] and widths[5] >= widths[4] else 4
    rows, seen = [], set()
    for number, line in _lines(path):
        cells = line.split("\t")
        where = f"{name}:{number}"
        if reason := _damage(cells, columns):
            notes.add(where, reason)
            continue
        person, image = person_name(cells[0]), int(cells[1])
        if (person, image) in seen:
            notes.add(where, "this person's image of this number is listed before")
            continue
        seen.add((person, image))
        md5 = cells[4].strip().lower() if columns == 5 else None
        rows.append(ListedFace(person, image, cells[2].strip(), _box(cells[3], where, notes), md5, number))
    if not rows:
        raise SalpipeError(
            f"{shown(path)}: no row of a PubFig list in it; rows are person, imagenum, url and rect, separated by tabs"
        )
    return tuple(rows)


def is_list(path: str | os.PathLike[str]) -> bool:
    """True if there is a valid row among the first lines of a file; False if it cannot be read."""
    try:
        lines = list(_lines(path, 2**16))
    except SalpipeError:
        return False
    return any(not _damage(cells, len(cells)) for _, line in lines if len(cells := line.split("\t")) in (4, 5))


def read_people(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The unique names in `dev_people.txt` or `eval_people.txt`, one per line; lines that begin with '#' are comments.

    Raises:
        SalpipeError: the file cannot be read, exceeds 64 MB or has no name.
    """
    names = dict.fromkeys(person_name(line) for _, line in _lines(path) if _is_name(person_name(line)))
    if not names:
        raise SalpipeError(f"{shown(path)}: no names in it; a file of people has one name per line")
    return tuple(names)


def of_people(
    rows: Sequence[ListedFace], people: Iterable[str], listed: str | os.PathLike[str]
) -> Sequence[ListedFace]:
    """The rows of some people; all rows if `people` is empty.

    Raises:
        SalpipeError: a name is not in the list, whose path is `listed`.
    """
    wanted, listed_people = {person_name(name) for name in people}, {row.person for row in rows}
    for name in sorted(wanted - listed_people):
        near = get_close_matches(name, listed_people, n=1)
        remedy = f"did you mean '{near[0]}'?" if near else "use a name of the list"
        raise SalpipeError(f"{shown(listed)}: no person called '{shown(name)}' in it; {remedy}")
    return [row for row in rows if row.person in wanted] if wanted else rows


def duplicates_in_list(rows: Iterable[ListedFace]) -> tuple[tuple[ListedFace, ...], ...]:
    """Groups of at least two rows with the same md5, in the order of `rows`.

    A group of more than one person is a label conflict. In the development list of v1.2 594 rows repeat the md5 of an
    earlier one, and 10 groups are conflicts.
    """
    groups: dict[str, list[ListedFace]] = {}
    for row in rows:
        if row.md5 is not None:
            groups.setdefault(row.md5, []).append(row)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _lines(path: str | os.PathLike[str], most: int | None = None) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are neither empty nor comments, in the first `most` bytes or the whole file."""
    with file_errors_explained(os.fspath(path)), open(path, "rb", opener=open_regular) as file:
        data = file.read(most or MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES or data.count(b"\n") > MAX_LINES:
        raise SalpipeError(f"{shown(path)}: more than 64 MB or {MAX_LINES:,} lines; give a list of PubFig")
    # only at line feeds: str.splitlines also splits at characters of Latin-1 names and URLs
    for number, raw in enumerate(BytesIO(data), 1):
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        try:
            line = text.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            line = text.decode("latin-1").rstrip("\r\n")
        if line.strip() and not line.startswith("#"):
            yield number, line


def _damage(cells: list[str], columns: int) -> str | None:
    """Fault of a row; None if it is valid."""
    if len(cells) != columns:
        return f"not {columns} columns separated by tabs"
    if not _is_name(person_name(cells[0])):
        return "no name that a folder could have"
    if not _NUMBER.fullmatch(cells[1].strip()):
        return "no image number"
    if not (url := cells[2].strip()) or not url.isprintable():
        return "no URL"
    if not _RECT.fullmatch(cells[3]):
        return "no rect of four corners"
    if columns == 5 and not _MD5.fullmatch(cells[4].strip()):
        return "no md5 of 32 hexadecimal digits"
    return None


def _is_name(name: str) -> bool:
    """True if a name of an untrusted list is safe as the name of a folder and a class."""
    return bool(
        name
        and name.isprintable()
        and not name.startswith((".", "#"))
        and not set(name) & set("/\\\t")
        and len(name.encode()) <= _MAX_NAME_BYTES
    )


def _box(rect: str, where: str, notes: Notes) -> Box | None:
    match = _RECT.fullmatch(rect)
    assert match is not None
    xa, ya, xb, yb = map(int, match.groups())
    box = min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)
    if box[2] <= max(box[0], 0) or box[3] <= max(box[1], 0):
        notes.remark(where, "its rect has no area within the image, which is taken whole")
        return None
    if box != (xa, ya, xb, yb):
        notes.remark(where, "its rect's corners are in the wrong order, which was put right")
    return box
