"""Detection of class names that look alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_CONFUSED = str.maketrans("аеорсухіјѕԁһАВЕКМНОРСТХІЈЅαοΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aeopcyxijsdhABEKMHOPCTXIJSaoABEZHIKMNOPTYX")
"""Cyrillic and Greek letters that look like Latin ones."""

_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def folded(name: str) -> str:
    """A name without differences that readers overlook.

    These are case, the spaces around and between words, '_' for a space, invisible characters, letters of full width
    and other compatibility forms, letters of another script that look the same, and leading zeros.

    >>> folded("Ｄｏｇ ") == folded("d\N{ZERO WIDTH SPACE}og"), folded("polar_bear"), folded("01")
    (True, 'polar bear', '1')
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name).translate(_CONFUSED)
        name = "".join(letter for letter in name if unicodedata.category(letter) not in ("Cf", "Mn"))
    return _LEADING_ZEROS.sub("", " ".join(name.replace("_", " ").casefold().split()))


def lookalikes(names: Sequence[str]) -> Iterator[str]:
    """One line per group of names that look alike, for the first twenty groups."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    for group in alike[:20]:
        only_case = len({name.casefold() for name in group}) == 1
        similarity = "differ by case only" if only_case else "look alike"
        # escaped, since the letters look the same
        named = ", ".join(repr(name) if only_case or name.isascii() else ascii(name) for name in group[:4])
        yield f"{named[:300]}: names of {len(group)} classes that {similarity}; rename them if they are the same class"
    if len(alike) > 20:
        yield f"and {len(alike) - 20:,} more groups of classes whose names look alike"
