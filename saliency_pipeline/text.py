"""Text for terminals: escaping of untrusted names, single-line messages, plurals."""

from __future__ import annotations

import os


def shown(name: str | os.PathLike[str]) -> str:
    r"""Return a path or name for use in a message, escaped if it is not printable.

    >>> print(shown("R\u00e9union/1.jpg"), shown("a\x1b[2J\u202eb"))
    Réunion/1.jpg 'a\x1b[2J\u202eb'
    """
    text = os.fspath(name)
    return text if text.isprintable() else ascii(text)


def printable(line: str) -> str:
    r"""Escape the control characters, direction marks and the like of a line that may contain raw names.

    >>> print(printable("a\x1b[2J.jpg: no such\nfile \u202e"))
    a\x1b[2J.jpg: no such\nfile \u202e
    """
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def one_line(reason: object, most: int = 160) -> str:
    """Return an exception or text as one line of at most `most` characters; of an empty exception the type's name."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= most else text[: most - 1] + "…"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun in the singular or plural.

    >>> plural(1, "shard"), plural(1200, "shard"), plural(0, "class"), plural(2, "box")
    ('1 shard', '1,200 shards', '0 classes', '2 boxes')
    """
    ending = "es" if noun.endswith(("s", "x")) else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
