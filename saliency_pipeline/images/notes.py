"""What a reader passed over and why: a hostile archive has a million things to name and must not fill memory."""

from __future__ import annotations

from saliency_pipeline.images.keys import shown

KEPT = 20
"""How many things are named for each reason; the rest is counted."""


class Notes:
    """Things passed over while a data set is read, gathered by reason in the order of their first appearance.

    >>> notes = Notes()
    >>> for line in range(25):
    ...     notes.add(f"dev_urls.txt:{line}", "no five columns")
    >>> len(notes), notes.lines()[0], notes.lines()[-1]
    (25, 'dev_urls.txt:0: no five columns', 'and 5 more: no five columns')
    """

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, place: str, reason: str) -> None:
        """Note that something was passed over.

        Args:
            place: what it is: `list.txt:12`, `train.tar: ../evil.jpg`. May come from a stranger's file.
            reason: one of a few sentences, the same for all things of a kind; put what differs into `place`.
        """
        self._counts[reason] = self._counts.get(reason, 0) + 1
        places = self._places.setdefault(reason, [])
        if len(places) < KEPT:
            places.append(shown(place)[:300])

    def __len__(self) -> int:
        return sum(self._counts.values())

    def counts(self) -> dict[str, int]:
        """How many things there are for each reason."""
        return dict(self._counts)

    def lines(self) -> tuple[str, ...]:
        """A line a thing, and a line for those of a reason that are not named."""
        found = []
        for reason, places in self._places.items():
            found += [f"{place}: {reason}" for place in places]
            if (more := self._counts[reason] - len(places)) > 0:
                found.append(f"and {more:,} more: {reason}")
        return tuple(found)
