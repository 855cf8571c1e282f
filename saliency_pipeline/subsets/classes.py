"""Selection of classes by name, WordNet id, pattern or file (`--classes`)."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

_COMMENT = re.compile(r"(^|\s)#.*")
_ID_IN_BRACKETS = re.compile(r" \(n[0-9]{8}\)$")
_WILD = re.compile(r"[*?[]")


class _Word(NamedTuple):
    """A word, and the option or line it comes from."""

    text: str
    where: str


def classes_meant(words: Sequence[str], classes: Sequence[str], ids: Sequence[str] = ()) -> tuple[int, ...]:
    """Labels of the classes that words select.

    A word is a class's name or WordNet id, or a pattern with `*`, `?` or `[...]` over both; case, '_' for ' ' and
    Unicode forms of a letter do not matter, unless a class has exactly that name. `!word` excludes its classes: from
    those that the other words select, or from all if there are none. `@file` stands for the words in a text file, one
    per line, with comments from '#' on; the rest of a line after a WordNet id is ignored, since published lists have
    the names there. The '@' may be left out if no class has the file's name.

    Args:
        words: values of `--classes`.
        classes: unique names in label order.
        ids: their WordNet ids in the same order, or none.

    Returns:
        Labels, ascending, without repetition.

    Raises:
        SalpipeError: a word matches no class, a name several, a file cannot be read, or no class is left.

    >>> classes_meant(["great *", "TENCH"], ["tench", "great white shark", "great auk"], ["n0", "n1", "n2"])
    (0, 1, 2)
    >>> classes_meant(["!great_auk"], ["tench", "great white shark", "great auk"])
    (0, 1)
    """
    labels = _meant((_Word(text, "--classes") for text in words), _Index(classes, ids), files=True)
    if not labels:
        raise SalpipeError("--classes: no class is left; exclude fewer")
    return tuple(sorted(labels))


def check_files(words: Iterable[str], images: Path) -> None:
    """Check that the files of `--classes` exist, before images are listed.

    Args:
        words: values of `--classes`.
        images: the data set, whose classes take precedence over files of the same names.

    Raises:
        SalpipeError: a file does not exist.
    """
    for text in words:
        name = text.strip().removeprefix("!").strip()
        if name.startswith("@") and not os.path.exists(name[1:]):
            place = glob.escape(name)
            if not any(path for pattern in (place, f"*/{place}") for path in images.glob(pattern)):
                raise _no_such_file(name)


def _no_such_file(name: str) -> SalpipeError:
    return SalpipeError(f"--classes {shown(name)}: No such file or directory; check the path")


def _meant(words: Iterable[_Word], index: _Index, *, files: bool) -> set[int]:
    """The labels that words select together; may be empty."""
    included: set[int] = set()
    left_out: set[int] = set()
    only_left_out = True
    for text, where in words:
        name = text.strip().removeprefix("!").strip()
        if files and not index.named(name) and (name.startswith("@") or os.path.isfile(name)):
            if not os.path.exists(name.removeprefix("@")):
                raise _no_such_file(name)
            labels = _meant(_words_of_file(name.removeprefix("@")), index, files=False)
        else:
            labels = index.find(_Word(name, where))
        if text.strip().startswith("!"):
            left_out |= labels
        else:
            included |= labels
            only_left_out = False
    return (index.all if only_left_out else included) - left_out


def _words_of_file(path: str) -> Iterator[_Word]:
    empty = True
    for number, line in Lines(path):
        if text := _COMMENT.sub("", line).strip():
            first = text.split()[0].lower()
            yield _Word(first if is_wnid(first.removeprefix("!")) else text, f"{shown(path)}:{number}")
            empty = False
    if empty:
        raise SalpipeError(f"{shown(path)}: no classes in it; write one per line")


class _Index:
    """A data set's classes by all of their names."""

    def __init__(self, classes: Sequence[str], ids: Sequence[str]) -> None:
        self.all = set(range(len(classes)))
        self._called = ids or classes
        self._exact = {name: {label} for names in (classes, ids) for label, name in enumerate(names)}
        self._folded: dict[str, set[int]] = {}
        self._short: dict[str, set[int]] = {}
        for names in (classes, ids):
            for label, name in enumerate(names):
                self._folded.setdefault(_folded(name), set()).add(label)
                # "crane (n02012849)" and "crane (n03126707)" are both cranes
                self._short.setdefault(_folded(_ID_IN_BRACKETS.sub("", name)), set()).add(label)

    def named(self, name: str) -> set[int]:
        """The classes of a name: several if it is ambiguous."""
        folded = _folded(name)
        return self._exact.get(name) or self._folded.get(folded) or self._short.get(folded) or set()

    def find(self, word: _Word) -> set[int]:
        """The classes that a word selects, at least one."""
        labels = self.named(word.text)
        if len(labels) > 1:
            ids = ", ".join(shown(self._called[label]) for label in sorted(labels))
            raise SalpipeError(f"{word.where}: {len(labels)} classes are called {word.text!r}; use an id: {ids}")
        if labels:
            return labels
        if _WILD.search(word.text):
            matches = re.compile(fnmatch.translate(_folded(word.text))).match
            labels = {label for name, of_name in self._folded.items() if matches(name) for label in of_name}
            if not labels:
                raise SalpipeError(f"{word.where}: no class matches {word.text!r}; there are {self._some()}")
            return labels
        near = difflib.get_close_matches(_folded(word.text), self._short, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {self._some()}"
        raise SalpipeError(f"{word.where}: no class {word.text!r}; {hint}")

    def _some(self) -> str:
        first = ", ".join(map(shown, self._called[:5]))
        more = len(self._called) - 5
        return f"{first} and {more:,} more" if more > 0 else first


def _folded(name: str) -> str:
    name = name if name.isascii() else unicodedata.normalize("NFKC", name)
    return " ".join(name.replace("_", " ").casefold().split())
