"""Names of exported files and folders: safe on every file system, whatever keys, classes and methods are called."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

_UNSAFE = re.compile(r"[^\w .()+=,@-]")
# devices of Windows, also with any ending
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_MAX_BYTES = 80


def safe_name(text: str) -> str:
    """A name for one file or folder: letters, digits and a few signs, never empty, hidden or longer than 80 bytes.

    >>> safe_name("../../etc/passwd"), safe_name("Vögel"), safe_name(".."), safe_name("nul.png")
    ('_.._etc_passwd', 'Vögel', '_', '_nul.png')
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" .")
    name = name.encode("utf-8", "replace")[:_MAX_BYTES].decode("utf-8", "ignore").strip(" .") or "_"
    return safe_name(f"_{name}") if _RESERVED.match(name) else name


def unique_names(texts: Sequence[str]) -> list[str]:
    """Safe names that differ, also where case does not count, see `distinct`.

    >>> unique_names(["a/b", "A:b", "cat"])
    ['a_b-0', 'A_b-1', 'cat']
    """
    return distinct([safe_name(text) for text in texts])


def distinct(names: Sequence[str], separator: str = "-", taken: Collection[str] = ()) -> list[str]:
    """The names, of which those that occur several times, whatever their case, or are taken get their position.

    >>> distinct(["a", "A", "a-0"]), distinct(["id", "cat"], "_", taken=["id"])
    (['a-0-0', 'A-1', 'a-0'], ['id_0', 'cat'])
    """
    counts = Counter(name.casefold() for name in (*names, *taken))
    used, result = set(counts), []
    for place, name in enumerate(names):
        if counts[name.casefold()] > 1:
            while name.casefold() in used:
                name = f"{name}{separator}{place}"
            used.add(name.casefold())
        result.append(name)
    return result


def target_names(counts: Mapping[str, int], names: Sequence[str], infix: str = "-") -> dict[str, list[str]]:
    """Names of the maps of each method, all different: the method's own, or one per explained class.

    Args:
        counts: number of explained classes by method.
        names: a name per method.
        infix: between name and number of the class; its first character also stands before positions.

    >>> target_names({"gradcam": 2, "edges": 1}, ["gradcam", "gradcam-1"])
    {'gradcam': ['gradcam-1-0', 'gradcam-2'], 'edges': ['gradcam-1-2']}
    """
    numbered = [
        name if count == 1 else f"{name}{infix}{target + 1}"
        for name, count in zip(names, counts.values(), strict=True)
        for target in range(count)
    ]
    differing = iter(distinct(numbered, infix[0]))
    return {method: list(islice(differing, count)) for method, count in counts.items()}


def sample_name(position: int) -> str:
    """Name of the image at a position of the data set, where its key may not be one.

    >>> sample_name(12)
    '00000012'
    """
    return f"{position:08d}"
