"""Joining of names in a file from elsewhere, or of files in a folder, to the images of a data set."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from saliency_pipeline.datasets.confusable_names import folded
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import stem
from saliency_pipeline.text import shown

_NAMED, _COMPARED = 3, 100_000
"""Number of names in a note, and of keys that are searched for one that looks like a name without an image."""

Parts = tuple[str, ...]


def join_names(names: Mapping[str, str], keys: Sequence[str], *, stems: bool = False) -> dict[str, int]:
    """Match names with images.

    A name is that of an image if it is the image's key, in either Unicode form and with slashes or backslashes, or if
    one of both is the end of the other, folder by folder: `cat/1.jpg` may be `photos/cat/1.jpg` or `1.jpg`, but never
    `dog/1.jpg`.

    Args:
        names: where each name is from, as messages call it, such as `boxes.csv:12`.
        keys: keys of the images, all of the data set: a name that is unique in a subset may be ambiguous.
        stems: names are without suffix; that of an image's name is then ignored as well.

    Returns:
        Position of the image by name; names of no image are left out.

    Raises:
        SalpipeError: a name is that of several images, or two names are those of one image; names them.
    """
    wanted: dict[str, list[tuple[str, Parts]]] = {}
    for name in names:
        if parts := _parts(name):
            wanted.setdefault(parts[-1], []).append((name, parts[:-1]))
    whole: dict[str, list[int]] = {}
    ends: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        *folders, last = _parts(key)
        for form in {last, stem(last)} if stems else {last}:
            for name, above in wanted.get(form, ()):
                common = min(len(above), len(folders))
                if above[len(above) - common :] == tuple(folders[len(folders) - common :]):
                    (whole if len(above) == len(folders) else ends).setdefault(name, []).append(place)
    taken = {place for places in whole.values() for place in places}
    matches: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name, where in names.items():
        # whoever has the whole key of an image is its owner
        places = whole.get(name) or [place for place in ends.get(name, ()) if place not in taken]
        if len(places) > 1:
            places = [place for place in places if keys[place] == name] or places
        if len(places) > 1:
            images = ", ".join(shown(keys[place]) for place in places[:_NAMED])
            raise SalpipeError(
                f"{where}: {shown(name)} is the name of {len(places):,} images ({images}{_more(len(places))}); "
                "give their folders, too"
            )
        for place in places:
            if (other := owners.setdefault(place, name)) != name:
                raise SalpipeError(
                    f"{where}: {shown(name)} and {shown(other)} are names of one image, {shown(keys[place])}; "
                    "leave one out"
                )
            matches[name] = place
    return matches


def unmatched(names: Sequence[str], keys: Sequence[str]) -> str:
    """Some names of no image in words, the first with the key that looks like it: `a.jpg (cat/A.JPG?), b.jpg, ...`."""
    first = folded(names[0].replace("\\", "/").rpartition("/")[2])
    like = next((key for key in islice(keys, _COMPARED) if _looks_like(key, first)), None)
    hint = f" ({shown(like)}?)" if like is not None else ""
    return f"{shown(names[0])}{hint}{''.join(f', {shown(name)}' for name in names[1:_NAMED])}{_more(len(names))}"


def _looks_like(key: str, name: str) -> bool:
    last = key.rpartition("/")[2]
    return name in (folded(last), folded(stem(last)))


def _more(count: int) -> str:
    return ", ..." if count > _NAMED else ""


def _parts(name: str) -> Parts:
    """Folders and name of a path, in Unicode form NFC."""
    return tuple(_steps(name if name.isascii() else unicodedata.normalize("NFC", name)))


def _steps(name: str) -> Iterator[str]:
    return (part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
