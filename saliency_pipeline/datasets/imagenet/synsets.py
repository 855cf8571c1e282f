"""WordNet ids of ImageNet's classes, their readable names, and readers of lists of both."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.documents import DocumentError, read_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

_WNID = re.compile(r"n[0-9]{8}")

_MAX_JSON_BYTES = 2**24


def is_wnid(name: str) -> bool:
    """True if a name is a WordNet id of a noun.

    >>> is_wnid("n01440764"), is_wnid("n1440764"), is_wnid("n01440764_1")
    (True, False, False)
    """
    return _WNID.fullmatch(name) is not None


def imagenet_names() -> tuple[tuple[str, str], ...]:
    """WordNet id and readable name of the 1,000 classes of ILSVRC 2012, sorted by id: the order of a network's logits.

    >>> imagenet_names()[:2], imagenet_names()[134]
    ((('n01440764', 'tench'), ('n01443537', 'goldfish')), ('n02012849', 'crane (n02012849)'))
    """
    wnids = sorted(_info().label_names())
    return tuple(zip(wnids, readable(wnids), strict=True))


def readable(wnids: Sequence[str], names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Unique readable names of classes: the first synonym, with the WordNet id in parentheses if classes share it.

    Args:
        wnids: unique WordNet ids.
        names: the data set's own names, synonyms separated by commas; by default those of timm, which has all 21,841
            classes of ImageNet. The name of a class without one is its id.

    >>> readable(["n02012849", "n03126707", "n01440764"])
    ('crane (n02012849)', 'crane (n03126707)', 'tench')
    """
    firsts = [_first((names or {}).get(wnid, "")) or _first(_timm_name(wnid)) or wnid for wnid in wnids]
    counts = Counter(firsts)
    unique = [
        f"{name} ({wnid})" if counts[name] > 1 and name != wnid else name
        for name, wnid in zip(firsts, wnids, strict=True)
    ]
    if len(set(unique)) < len(unique):  # a name that ends with the id of another class
        unique = [f"{name} ({wnid})" for name, wnid in zip(firsts, wnids, strict=True)]
    return tuple(unique)


def read_wnids(lines: Lines) -> tuple[str, ...]:
    """The ids of a file with one per line (`wnids.txt`, `synsets.txt`), in its order.

    Raises:
        SalpipeError: a line is no WordNet id or repeats one; the message has file and line.
    """
    line_of: dict[str, int] = {}
    for number, text in lines:
        wnid = text.strip()
        if not is_wnid(wnid):
            lines.fail(number, f"{shown(wnid[:40])} is no WordNet id such as n01440764")
        if wnid in line_of:
            lines.fail(number, f"{wnid} is also in line {line_of[wnid]}")
        line_of[wnid] = number
    return tuple(line_of)


def read_words(lines: Lines, wnids: Collection[str]) -> dict[str, str]:
    """Names of some classes from a file of `wnid names`, separated by a space or tab.

    `LOC_synset_mapping.txt` and `synset_words.txt` list a data set's classes, `words.txt` all of WordNet.

    Raises:
        SalpipeError: a line does not begin with a WordNet id; the message has file and line.
    """
    words = {}
    for number, text in lines:
        wnid, *name = text.split(maxsplit=1)
        if not is_wnid(wnid):
            lines.fail(number, "does not begin with a WordNet id such as n01440764")
        if wnid in wnids and name:
            words[wnid] = name[0]
    return words


def read_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Names of classes from a JSON file `{wnid: names}`, as in ImageNet-100.

    Raises:
        SalpipeError: the file is not of that form, or cannot be read.
    """
    labels = None
    with file_errors_explained(os.fspath(path)), suppress(DocumentError):
        labels = read_json(os.fspath(path), _MAX_JSON_BYTES)
    if not isinstance(labels, dict) or not all(is_wnid(key) and isinstance(labels[key], str) for key in labels):
        raise SalpipeError(f"{shown(path)}: not the JSON of names by WordNet id that it should be; download it again")
    return labels


def _first(names: str) -> str:
    """The first synonym, with spaces for underscores; empty if it is not printable."""
    name = " ".join(names.partition(",")[0].replace("_", " ").split())
    return name if name.isprintable() else ""


@cache
def _info() -> Any:
    # here, because timm imports torch
    from timm.data.imagenet_info import ImageNetInfo

    return ImageNetInfo("imagenet-1k")


def _timm_name(wnid: str) -> str:
    try:
        return str(_info().label_name_to_description(wnid))
    except KeyError:
        return ""
