"""Names of exported files and folders: safe on every file system, whatever keys, classes and methods are called."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_UNSAFE = re.compile(r"[^\w .()+=,@-]")
_MAX_BYTES = 80


def safe_name(text: str) -> str:
    """A name for one file or folder: letters, digits and a few signs, never empty, hidden or longer than 80 bytes.

    >>> safe_name("../../etc/passwd"), safe_name("Vögel"), safe_name("..")
    ('_.._etc_passwd', 'Vögel', '_')
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" .")
    return name.encode("utf-8", "replace")[:_MAX_BYTES].decode("utf-8", "ignore").strip(" .") or "_"


def unique_names(texts: Sequence[str]) -> list[str]:
    """Safe names that differ, also where case does not count; those that would not get their position.

    >>> unique_names(["a/b", "A:b", "cat"])
    ['a_b-0', 'A_b-1', 'cat']
    """
    names = [safe_name(text) for text in texts]
    folded = [name.casefold() for name in names]
    repeated = {name for name, count in Counter(folded).items() if count > 1}
    return [f"{name}-{place}" if folded[place] in repeated else name for place, name in enumerate(names)]


def sample_name(position: int) -> str:
    """Name of the image at a position of the data set, where its key may not be one.

    >>> sample_name(12)
    '00000012'
    """
    return f"{position:08d}"
