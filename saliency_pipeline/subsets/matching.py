"""Regular expression search in keys as a program of its own, so that a search that takes too long can be killed.

It needs only the standard library, and reads and writes JSON: {"pattern", "keys"} to {"names"} or {"error"}.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterable


def names(pattern: str, keys: Iterable[str]) -> list[str | None]:
    """First match of a pattern in every key: its first group if it has one, else all of it; None for no match.

    Raises:
        re.error, OverflowError, RecursionError, MemoryError: the pattern is invalid.

    >>> names("person([0-9]+)", ["cat/person7-1.jpg", "cat/1.jpg"])
    ['7', None]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(pattern)
    number = 1 if compiled.groups else 0
    return [(match[number] or None) if (match := compiled.search(key)) else None for key in keys]


def main() -> None:
    """Answer one query on standard input."""
    question = json.load(sys.stdin)
    try:
        answer: dict[str, object] = {"names": names(question["pattern"], question["keys"])}
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        answer = {"error": str(error) or type(error).__name__}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
