"""Log of a fetch, one line per outcome of a row, and its report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from saliency_pipeline.datasets.pubfig_list import ListedFace
from saliency_pipeline.documents import parse_json
from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.folders import open_to_append
from saliency_pipeline.remote.session import Limits
from saliency_pipeline.text import shown

LOG_NAME = "fetch.jsonl"

HAD = ("ok", "copied")
"""Outcomes of rows whose image exists."""

PASSING = ("time-out", "connection-error", "host-unreachable", "truncated")
"""Temporary failures, which the next run tries again; see also `Outcome.final`."""

MAX_BYTES = 2**30
"""Size limit of the log: some thirty runs of the whole list."""

_MAX_LINE_BYTES = 2**16
_REMEDIES = {"refused-address": " (--allow-private would connect to them)"}
_PASSING_STATUS = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a row.

    Attributes:
        person, imagenum, url: the row.
        outcome: `ok`; `copied` from another row of the same content; `host-unreachable`, not tried since its host
            could not be reached before; `md5-mismatch`; or an outcome of `DownloadError`.
        detail: one short printable line.
        status: HTTP status of the last reply; None without one.
        bytes: size of the image; at least so many if it is too large; None without one.
        md5: md5 of the downloaded file, also if it is the wrong one.
        attempts: number of attempts in that run.
    """

    person: str
    imagenum: int
    url: str
    outcome: str
    detail: str = ""
    status: int | None = None
    bytes: int | None = None
    md5: str | None = None
    attempts: int = 0

    @property
    def had(self) -> bool:
        """True if the image exists."""
        return self.outcome in HAD

    def final(self, limits: Limits) -> bool:
        """True if another run with these limits would fail as well."""
        if self.outcome == "refused-address":
            return not limits.allow_private
        if self.outcome == "too-large":
            return self.bytes is not None and self.bytes > limits.max_bytes
        if self.outcome == "http-error" and self.status is not None:
            return self.status < 500 and self.status not in _PASSING_STATUS
        return not self.had and self.outcome not in (*PASSING, "http-error")


class FetchLog:
    """`fetch.jsonl` of a folder; every outcome is written immediately.

    A killed process leaves at most its last line incomplete. Invalid or too long lines are skipped; the last line of a
    row counts.

    Attributes:
        last: last outcomes by person, number and URL.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME
        self.last: dict[tuple[str, int, str], Outcome] = {}

    def __enter__(self) -> FetchLog:
        with disk_errors_explained(self.path):
            self._file = open(open_to_append(self.path, MAX_BYTES), "ab", buffering=0)
            torn = False
            with open(self._file.fileno(), "rb", closefd=False) as lines:
                lines.seek(0)
                while line := lines.readline(_MAX_LINE_BYTES):
                    torn = not line.endswith(b"\n")
                    if outcome := _parsed(line):
                        self.last[outcome.person, outcome.imagenum, outcome.url] = outcome
            if torn:
                self._file.write(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Write a line. Raises SalpipeError if the disk is full."""
        with disk_errors_explained(self.path):
            self._file.write(json.dumps(asdict(outcome)).encode() + b"\n")
        self.last[outcome.person, outcome.imagenum, outcome.url] = outcome

    def of(self, row: ListedFace) -> Outcome | None:
        """The last outcome of a row."""
        return self.last.get((row.person, row.number, row.url))


@dataclass(frozen=True)
class FetchReport:
    """Result of a fetch.

    Attributes:
        folder: folder of the images.
        listed: number of selected rows.
        images: number of rows whose image exists now.
        downloaded: images this run downloaded, without copies.
        bytes: size of those.
        outcomes: number of rows by outcome, the most frequent first; `not-tried` are beyond the limit per person.
        people: number of selected people.
        few_below: threshold of `few`.
        few: people with fewer images, and their numbers.
        seconds: duration.
        notes: one line per skipped row of the list.
    """

    folder: str
    listed: int
    images: int
    downloaded: int
    bytes: int
    outcomes: dict[str, int]
    people: int
    few_below: int
    few: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Two lines: the numbers of images, and the outcomes."""
        outcomes = ", ".join(
            f"{shown(outcome)} {count:,}{_REMEDIES.get(outcome, '')}" for outcome, count in self.outcomes.items()
        )
        return (
            f"{shown(self.folder)}: {self.images:,} of {self.listed:,} images present, {self.downloaded:,} downloaded "
            f"now ({self.bytes / 1e6:,.1f} MB in {self.seconds:,.0f} s)\n{outcomes}"
        )


def _parsed(line: bytes) -> Outcome | None:
    try:
        outcome = Outcome(**parse_json(line))
    except (ValueError, TypeError):
        return None
    texts = outcome.person, outcome.url, outcome.outcome
    numbers = outcome.status, outcome.bytes
    sound = isinstance(outcome.imagenum, int) and all(isinstance(text, str) for text in texts)
    return outcome if sound and all(isinstance(number, int | None) for number in numbers) else None
