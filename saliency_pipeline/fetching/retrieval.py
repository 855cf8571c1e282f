"""Scheduling of a fetch: which rows are settled, and which wait for which download."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.pubfig import numbered
from saliency_pipeline.datasets.pubfig_list import ListedFace
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.fetching.download import Download, DownloadError, download, suffix_of
from saliency_pipeline.fetching.fetch_log import FetchLog, Outcome
from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.folders import refuse_link
from saliency_pipeline.images.magic import FIRST_BYTES
from saliency_pipeline.progress import Progress
from saliency_pipeline.remote.session import Limits, new_session
from saliency_pipeline.temporaries import temporary_name

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

GIVE_UP = 5
"""Consecutive failures to reach a host after which it is not tried again in this run."""


class _Content(NamedTuple):
    """An existing image: its file, length and md5."""

    path: Path
    bytes: int
    md5: str


class Retrieval:
    """Settles every row: its image exists, or there is a reason why not.

    Everything but the downloads themselves happens between two awaits, so that nothing here needs a lock.
    The folder is absolute and locked by the caller.

    Attributes:
        settled: outcomes of the settled rows, by person and number.
        had: number of existing images, by person.
        downloaded, bytes: number of images this run downloaded, and their bytes.
    """

    def __init__(
        self,
        rows: Sequence[ListedFace],
        folder: Path,
        log: FetchLog,
        limits: Limits,
        per_host: int,
        limit_per_person: int | None,
        progress: Progress,
    ) -> None:
        self.settled: dict[tuple[str, int], str] = {}
        self.had: Counter[str] = Counter()
        self.downloaded = self.bytes = 0
        self._rows, self._folder, self._log, self._limits = rows, folder, log, limits
        self._per_host, self._limit, self._progress = per_host, limit_per_person, progress
        self._files = numbered(folder, Notes())
        # rows: not begun, by person; number begun and not settled; failed, by content
        self._untried: dict[str, deque[ListedFace]] = {row.person: deque() for row in rows}
        self._begun: Counter[str] = Counter()
        self._failed: dict[str, list[ListedFace]] = {}
        self._there: dict[str, _Content] = {}
        # URLs: rows that wait for each that is queued or downloading, URL expected to bring a content, failures
        self._waiting: dict[str, list[ListedFace]] = {}
        self._bringing: dict[str, str] = {}
        self._lost: dict[str, DownloadError] = {}
        # hosts: queued URLs, running downloads, consecutive failures to reach it
        self._queues: dict[str, deque[str]] = {}
        self._lanes: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()

    def take_stock(self, retry_failed: bool) -> None:
        """Settle the rows whose image exists, and those with a permanent failure in an earlier run.

        Args:
            retry_failed: leave the latter to be tried again.

        Raises:
            SalpipeError: the log cannot be written.
        """
        for row in self._rows:
            path = self._files.get((row.person, row.number))
            if path is not None and (outcome := self._found(row, Path(path))):
                self._settle(row, outcome)
                assert outcome.bytes is not None
                assert outcome.md5 is not None
                self._there.setdefault(_content(row), _Content(Path(path), outcome.bytes, outcome.md5))
        for row in self._rows:
            if (row.person, row.number) in self.settled:
                continue
            last = self._log.of(row)
            if last and last.final(self._limits) and not retry_failed and _content(row) not in self._there:
                self._settle(row, last)
            else:
                self._untried[row.person].append(row)

    def download(self, jobs: int, resolver: AbstractResolver | None) -> None:
        """Settle the other rows, up to the limit per person.

        Raises:
            SalpipeError: a file cannot be written.
        """
        if not any(self._untried.values()):
            return
        try:
            asyncio.run(self._download(jobs, resolver))
        except ExceptionGroup as group:
            error: Exception = group.subgroup(SalpipeError) or group
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _download(self, jobs: int, resolver: AbstractResolver | None) -> None:
        # names are looked up in threads, and most of so old a list take long to fail
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(jobs))
        self._slots = asyncio.Semaphore(jobs)
        async with (
            new_session(self._limits, per_host=self._per_host, resolver=resolver) as self._session,
            asyncio.TaskGroup() as self._tasks,
        ):
            for person in self._untried:
                self._begin(person)

    def _begin(self, person: str) -> None:
        """Begin as many of a person's rows as may still be needed."""
        rows = self._untried[person]
        while rows and (self._limit is None or self.had[person] + self._begun[person] < self._limit):
            row = rows.popleft()
            self._begun[person] += 1
            self._get(row)

    def _get(self, row: ListedFace) -> None:
        """Settle a row at once, or let it wait for a download: its own, or another of the same content."""
        content = _content(row)
        if content in self._there:
            self._copy(row)
        elif row.url in self._lost:
            self._fail(row, self._lost[row.url])
        elif (url := row.url if row.url in self._waiting else self._bringing.get(content)) is not None:
            self._waiting[url].append(row)
        else:
            self._waiting[row.url] = [row]
            self._bringing[content] = row.url
            host = _host(row.url)
            self._queues.setdefault(host, deque()).append(row.url)
            if self._lanes[host] < self._per_host:
                self._lanes[host] += 1
                self._tasks.create_task(self._lane(host))

    async def _lane(self, host: str) -> None:
        """Download from one host, one image after the other, so that a slow host takes only its own slots."""
        queue = self._queues[host]
        while queue:
            await self._ask(queue.popleft(), host)
        self._lanes[host] -= 1

    async def _ask(self, url: str, host: str) -> None:
        def attempted(error: DownloadError | None) -> bool:
            if error is None or not error.unreachable:
                self._misses[host] = 0
            else:
                self._misses[host] += 1 if error.passing else GIVE_UP
            return self._misses[host] < GIVE_UP

        row = self._waiting[url][0]
        try:
            if self._misses[host] >= GIVE_UP:
                raise DownloadError("host-unreachable", f"{host} was not reached before", attempts=0)
            final = self._folder / row.person / str(row.number)
            arrived = await download(self._session, url, final, self._limits, slots=self._slots, attempted=attempted)
        except DownloadError as error:
            self._close(url, error, None)
        else:
            mismatch = DownloadError("md5-mismatch", status=arrived.status, md5=arrived.md5, attempts=arrived.attempts)
            self._close(url, mismatch, arrived)

    def _close(self, url: str, error: DownloadError, arrived: Download | None) -> None:
        """Finish a URL: one row takes the file, others copy it; rows of this URL fail; the rest try their own."""
        rows = self._waiting.pop(url)
        for row in rows:
            if self._bringing.get(_content(row)) == url:
                del self._bringing[_content(row)]
        persons = {row.person for row in rows}
        self._lost[url] = error
        if arrived is not None:
            wants_it = next((row for row in rows if row.md5 in (None, arrived.md5)), None)
            if wants_it is None:
                arrived.path.unlink(missing_ok=True)
            else:
                self._keep(wants_it, arrived)
                rows.remove(wants_it)
                for other in self._failed.pop(_content(wants_it), ()):
                    if self._limit is None or self.had[other.person] + self._begun[other.person] < self._limit:
                        self._begun[other.person] += 1
                        rows.append(other)
        for row in rows:
            self._get(row)
        for person in persons:
            self._begin(person)

    def _keep(self, row: ListedFace, arrived: Download) -> None:
        final = arrived.path.with_name(f"{row.number}.{arrived.suffix}")
        with disk_errors_explained(final):
            self._publish(arrived.path, final, row)
        self.downloaded += 1
        self.bytes += arrived.bytes
        self._there[_content(row)] = _Content(final, arrived.bytes, arrived.md5)
        self._begun[row.person] -= 1
        self._settle(row, _outcome(row, "ok", arrived))

    def _copy(self, row: ListedFace) -> None:
        """Link the existing file of a row's content, or copy it where links are not possible."""
        path, length, md5 = self._there[_content(row)]
        final = self._folder / row.person / f"{row.number}{path.suffix}"
        tmp = temporary_name(final)
        with disk_errors_explained(final):
            refuse_link(final.parent)
            final.parent.mkdir(exist_ok=True)
            try:
                os.link(os.path.realpath(path), tmp)  # the target, since a relative link may dangle elsewhere
            except OSError:
                with open(path, "rb") as source_file, open(tmp, "xb") as copy:
                    shutil.copyfileobj(source_file, copy)
            self._publish(tmp, final, row)
        self._begun[row.person] -= 1
        source = f"{path.parent.name}/{path.name}"
        self._settle(row, Outcome(row.person, row.number, row.url, "copied", source, bytes=length, md5=md5))

    def _publish(self, tmp: Path, final: Path, row: ListedFace) -> None:
        """Rename a row's image. It is not synced, for speed: the log has its length."""
        os.replace(tmp, final)
        tmp.unlink(missing_ok=True)  # it still exists if both are links to one file
        before = self._files.get((row.person, row.number))
        # folders and files may be links; dangling ones are removed as well
        if before is not None and not (os.path.exists(before) and os.path.samefile(before, final)):
            self._remove(Path(before))

    def _remove(self, path: Path) -> None:
        """Remove a file, unless its folder is a link that leads out of the output folder."""
        if path.parent.resolve().is_relative_to(self._folder.resolve()):
            path.unlink(missing_ok=True)

    def _fail(self, row: ListedFace, error: DownloadError) -> None:
        self._begun[row.person] -= 1
        self._settle(row, _outcome(row, error.outcome, error, error.detail))

    def _settle(self, row: ListedFace, outcome: Outcome) -> None:
        if outcome != self._log.of(row):
            self._log.add(outcome)
        if outcome.had:
            self.had[row.person] += 1
        else:
            self._failed.setdefault(_content(row), []).append(row)
        if (row.person, row.number) not in self.settled:  # a failed row may still get its image from another
            self._progress.advance(1)
        self.settled[row.person, row.number] = outcome.outcome

    def _found(self, row: ListedFace, path: Path) -> Outcome | None:
        """The outcome of a row with an existing file; None if that is another image or cannot be read."""
        last = self._log.of(row)
        try:
            length = path.stat().st_size
            if last and last.had and last.bytes == length and last.md5 and row.md5 in (None, last.md5):
                return last
            with open(path, "rb", opener=open_regular) as file:
                image = suffix_of(file.read(FIRST_BYTES)) is not None
                file.seek(0)
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError:
            return None
        if row.md5 not in (None, md5) or not image:
            return None
        return Outcome(row.person, row.number, row.url, "ok", "was in the folder", bytes=length, md5=md5)


def _content(row: ListedFace) -> str:
    """Identifies the content of a row: its md5, or its URL in lists without md5."""
    return row.md5 or row.url


def _host(url: str) -> str:
    """`host:port` of a URL."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port or parts.scheme}"
    except ValueError:
        return ""


def _outcome(row: ListedFace, outcome: str, result: Download | DownloadError, detail: str = "") -> Outcome:
    facts = result.status, result.bytes, result.md5, result.attempts
    return Outcome(row.person, row.number, row.url, outcome, detail, *facts)
