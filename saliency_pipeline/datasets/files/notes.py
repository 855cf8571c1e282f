"""Notes of readers about what they skip, with bounded memory even for hostile archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from saliency_pipeline.datasets.files.listing import Listing
from saliency_pipeline.images.keys import NO_ENDING, ending_of
from saliency_pipeline.text import shown

KEPT = 20
"""Number of things that are named per reason; the rest is counted."""

_MAX_KINDS = 24
_OTHER = "of other kinds"


class Notes:
    """Things skipped while a data set is read, by reason in the order of their first appearance.

    >>> notes = Notes()
    >>> for line in range(25):
    ...     notes.add(f"dev_urls.txt:{line}", "no five columns")
    >>> notes.count(".txt", 3)
    >>> len(notes), notes.lines()[0], notes.lines()[-2:]
    (25, 'dev_urls.txt:0: no five columns', ('and 5 more: no five columns', 'skipped: 3 .txt (not read)'))
    >>> notes.passed_over()
    {'.txt': 3, 'no five columns': 25}
    """

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self._remarks: set[str] = set()
        self._kinds: Counter[str] = Counter()
        self._by_content: Counter[str] = Counter()

    def add(self, place: str, reason: str) -> None:
        """Note that something was skipped.

        Args:
            place: its name, such as `list.txt:12` or `train.tar: ../evil.jpg`; may come from an untrusted file.
            reason: one of a few sentences, the same for all things of a kind, since shards store them.
        """
        self._counts[reason] = self._counts.get(reason, 0) + 1
        places = self._places.setdefault(reason, [])
        if len(places) < KEPT:
            places.append(shown(place)[:300])

    def remark(self, place: str, reason: str) -> None:
        """Note something about the data set that skips nothing; arguments as for `add`."""
        self._remarks.add(reason)
        self.add(place, reason)

    def count(self, kind: str, number: int = 1) -> None:
        """Count skipped things that are not named.

        Args:
            kind: a suffix such as `.txt`, or a word or two to follow a number, such as `hidden`. All kinds are reported
                in one line, and those beyond the first two dozen together.
            number: number of things.
        """
        if number:
            _grow(self._kinds, kind, number)

    def take(self, content: Mapping[str, int]) -> None:
        """Count images that were recognized by their first bytes, by suffix."""
        for kind, number in content.items():
            _grow(self._by_content, kind, number)

    def listed(self, listing: Listing, used: Collection[str] = ()) -> None:
        """Count the entries of a folder that are neither folders nor images, nor `used` by a reader."""
        for kind, number in listing.skipped.items():
            self.count(kind, number)
        self.count("pipes, sockets or devices", len(listing.pipes))
        for name in listing.others:
            if name not in used:
                self.count(ending_of(name))
        self.take(listing.by_content)

    def cause(self) -> str:
        """The first lines in parentheses, for an error if nothing is left; empty without notes."""
        return f" ({'; '.join(lines)})" if (lines := self.lines()[:3]) else ""

    def __len__(self) -> int:
        return sum(self._counts.values())

    def passed_over(self) -> dict[str, int]:
        """Number of skipped things by kind and reason, with few enough entries to be stored in every shard."""
        named = {reason[:160]: number for reason, number in self._counts.items() if reason not in self._remarks}
        counts = dict(self._kinds.most_common()) | dict(list(named.items())[:_MAX_KINDS])
        if more := sum(list(named.values())[_MAX_KINDS:]):
            counts[_OTHER] = counts.get(_OTHER, 0) + more
        return counts

    def lines(self) -> tuple[str, ...]:
        """One line per named thing, one for the rest of each reason, and one for all that is only counted."""
        lines = []
        for reason, places in self._places.items():
            lines += [f"{place}: {reason}" for place in places]
            if (more := self._counts[reason] - len(places)) > 0:
                lines.append(f"and {more:,} more: {reason}")
        if self._by_content:
            lines.append(f"taken for images by their first bytes: {counted(self._by_content)}")
        if self._kinds:
            files = {kind: number for kind, number in self._kinds.items() if kind.startswith(".") or kind == NO_ENDING}
            rest = {kind: number for kind, number in self._kinds.items() if kind not in files}
            parts = [f"{counted(files)} (not read)"] if files else []
            parts += [counted(rest)] if rest else []
            lines.append(f"skipped: {'; '.join(parts)}")
        return tuple(lines)


def _grow(counts: Counter[str], kind: str, number: int) -> None:
    counts[kind if kind in counts or len(counts) < _MAX_KINDS else _OTHER] += number


def counted(kinds: Mapping[str, int]) -> str:
    """Counts by kind as text, the most frequent first.

    >>> counted({".csv": 3, ".txt": 1200})
    '1,200 .txt, 3 .csv'
    """
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {shown(kind)}" for kind, number in ranked)
