"""Class names that a reader takes for one another. They stay different classes; which they are is said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_CONFUSED = str.maketrans("аеорсухіјѕԁһАВЕКМНОРСТХІЈЅαοΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aeopcyxijsdhABEKMHOPCTXIJSaoABEZHIKMNOPTYX")
"""Letters of Cyrillic and Greek that look like those of Latin."""

_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def folded(name: str) -> str:
    """What is left of a name without what tells it from others at a second look alone.

    That are case, the spaces around and between words, '_' for a space, invisible characters, letters of full width and
    other compatibility forms, letters of another script that look the same, and leading zeros.

    >>> folded("Ｄｏｇ ") == folded("d\N{ZERO WIDTH SPACE}og"), folded("polar_bear"), folded("01")
    (True, 'polar bear', '1')
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name).translate(_CONFUSED)
        name = "".join(letter for letter in name if unicodedata.category(letter) not in ("Cf", "Mn"))
    return _LEADING_ZEROS.sub("", " ".join(name.replace("_", " ").casefold().split()))


def lookalikes(names: Sequence[str]) -> Iterator[str]:
    """A line for each group of names that look alike, the first twenty of them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    for group in alike[:20]:
        only_case = len({name.casefold() for name in group}) == 1
        what = "differ by case only" if only_case else "look alike"
        # letter by letter, since it is the letters that one cannot tell apart
        named = ", ".join(repr(name) if only_case or name.isascii() else ascii(name) for name in group[:4])
        yield f"{named[:300]}: names of {len(group)} classes that {what}; rename them where they are the same class"
    if len(alike) > 20:
        yield f"and {len(alike) - 20:,} more groups of classes whose names look alike"
