"""Which of a data set's classes a user's words mean: names, WordNet ids, patterns, files of them. No images here."""

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
    """A word, and where it stands."""

    text: str
    where: str


def classes_meant(words: Sequence[str], classes: Sequence[str], ids: Sequence[str] = ()) -> tuple[int, ...]:
    """The classes that words mean.

    A word is a class's name or WordNet id, or a pattern with `*`, `?` or `[...]` over both; upper and lower case,
    '_' and ' ', and the forms in which Unicode writes a letter count as the same, unless a class is called exactly so.
    `!word` leaves out what the word means: of the classes that the other words mean, or of all where there are none.
    `@file` means what the words in a text file mean, one a line, with comments from '#' on; after a WordNet id the rest
    of a line is not read, since published lists have the names there. Without the '@' a file counts where no class is
    called like it.

    Args:
        words: as `--classes` takes them.
        classes: names in label order, each another one.
        ids: their WordNet ids in the same order, or none.

    Returns:
        Labels, ascending, without repetition.

    Raises:
        SalpipeError: a word means no class, a name means several, a file cannot be read, or no class is left.

    >>> classes_meant(["great *", "TENCH"], ["tench", "great white shark", "great auk"], ["n0", "n1", "n2"])
    (0, 1, 2)
    >>> classes_meant(["!great_auk"], ["tench", "great white shark", "great auk"])
    (0, 1)
    """
    found = _meant((_Word(text, "--classes") for text in words), _Index(classes, ids), files=True)
    if not found:
        raise SalpipeError("--classes: no class is left; leave fewer out")
    return tuple(sorted(found))


def check_files(words: Iterable[str], images: Path) -> None:
    """Check that files which `--classes` names exist, before images are listed.

    Args:
        words: of `--classes`.
        images: the data set, whose classes go before files of the same names.

    Raises:
        SalpipeError: one does not.
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
    """The labels that words mean together; may be empty."""
    included: set[int] = set()
    left_out: set[int] = set()
    only_left_out = True
    for text, where in words:
        name = text.strip().removeprefix("!").strip()
        if files and not index.named(name) and (name.startswith("@") or os.path.isfile(name)):
            if not os.path.exists(name.removeprefix("@")):
                raise _no_such_file(name)
            found = _meant(_words_of_file(name.removeprefix("@")), index, files=False)
        else:
            found = index.find(_Word(name, where))
        if text.strip().startswith("!"):
            left_out |= found
        else:
            included |= found
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
        raise SalpipeError(f"{shown(path)}: no classes in it; write one a line")


class _Index:
    """A data set's classes by everything they are called."""

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
        """The classes of a name: more than one where it is ambiguous."""
        folded = _folded(name)
        return self._exact.get(name) or self._folded.get(folded) or self._short.get(folded) or set()

    def find(self, word: _Word) -> set[int]:
        """The classes that a word means, one at least."""
        found = self.named(word.text)
        if len(found) > 1:
            ids = ", ".join(shown(self._called[label]) for label in sorted(found))
            raise SalpipeError(f"{word.where}: {len(found)} classes are called {word.text!r}; say which: {ids}")
        if found:
            return found
        if _WILD.search(word.text):
            matches = re.compile(fnmatch.translate(_folded(word.text))).match
            found = {label for name, labels in self._folded.items() if matches(name) for label in labels}
            if not found:
                raise SalpipeError(f"{word.where}: no class matches {word.text!r}; there are {self._some()}")
            return found
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
