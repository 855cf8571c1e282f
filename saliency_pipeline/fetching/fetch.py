"""Download of PubFig: the images of a list, one folder per person."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.datasets.pubfig import LIST_NAMES
from saliency_pipeline.datasets.pubfig_list import ListedFace, of_people, person_name, read_list
from saliency_pipeline.fetching.fetch_log import LOG_NAME, FetchLog, FetchReport
from saliency_pipeline.fetching.presence import FEW, too_few
from saliency_pipeline.fetching.retrieval import Retrieval
from saliency_pipeline.files import disk_errors_explained, write_atomically
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.images.keys import natural
from saliency_pipeline.progress import Progress
from saliency_pipeline.remote.session import Limits, import_aiohttp, possible_downloads
from saliency_pipeline.temporaries import remove_stale_temporaries

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver


def fetch(
    listed: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    jobs: int = 32,
    per_host: int = 2,
    limits: Limits | None = None,
    people: Sequence[str] = (),
    limit_per_person: int | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
    resolver: AbstractResolver | None = None,
) -> FetchReport:
    """Download the images of a list of PubFig to `<output>/<person>/<imagenum>.<suffix>`; a second run resumes.

    An image must have the list's md5 (if it has one) and be an image by its first bytes, which decide its suffix; it
    replaces one of another md5. Content that is listed several times is downloaded once and linked or copied.
    `fetch.jsonl` in `output` gets one line per outcome; rows with a permanent failure are not tried again. The list is
    copied to `output`, so that the folder has layout `pubfig`.

    Args:
        listed: `dev_urls.txt` or `eval_urls.txt`, of any version.
        output: the folder; created if missing.
        jobs: number of concurrent downloads.
        per_host: maximum concurrent downloads per host.
        limits: limits of a download.
        people: names; empty for all.
        limit_per_person: images per person; rows are tried in the list's order until that many succeed.
        retry_failed: also try rows with a permanent failure again.
        progress: receives progress, in rows of the list.
        resolver: resolver of host names; the system's if None.

    Raises:
        SalpipeError: the list cannot be read, a name is not in it, the folder cannot be written or is in use, or
            aiohttp is missing.
    """
    import_aiohttp()
    started, notes, progress = time.monotonic(), Notes(), progress or Progress()
    listed, folder = Path(listed), Path(os.path.abspath(output))
    if (possible := possible_downloads(jobs)) < jobs:
        progress.note(f"--jobs {jobs}: only {possible}; more need a higher limit on open files (ulimit -n)")
    rows = of_people(_rows(listed, notes), people, listed)
    with disk_errors_explained(folder):  # images of an earlier run are no reason to refuse the folder
        there = {person_name(name) for name in os.listdir(folder)} if folder.is_dir() else set()
    if there.isdisjoint({person_name(LOG_NAME), *(row.person for row in rows)}):
        refuse_among_images(folder, listed)
    make_output(folder)
    with FolderLock(folder, note=progress.note):
        _copy_list(listed, folder)
        for each in (folder / person for person in {row.person for row in rows}):
            if each.is_dir() and not each.is_symlink():
                remove_stale_temporaries(each)
        with FetchLog(folder) as log:
            run = Retrieval(rows, folder, log, limits or Limits(), per_host, limit_per_person, progress)
            progress.start(len(rows), "image", "fetching")
            try:
                run.take_stock(retry_failed)
                run.download(possible, resolver)
            finally:
                progress.stop()
    had = {person: run.had[person] for person in sorted({row.person for row in rows}, key=natural)}
    few_below = FEW if limit_per_person is None else min(FEW, limit_per_person)
    outcomes = Counter(run.settled.get((row.person, row.number), "not-tried") for row in rows)
    return FetchReport(
        folder=os.fspath(output),
        listed=len(rows),
        images=sum(had.values()),
        downloaded=run.downloaded,
        bytes=run.bytes,
        outcomes=dict(outcomes.most_common()),
        people=len(had),
        few_below=few_below,
        few=too_few(had, few_below),
        seconds=time.monotonic() - started,
        notes=notes.lines(),
    )


def _rows(listed: Path, notes: Notes) -> list[ListedFace]:
    """The rows of a list, without people whose folder would have the name of the log."""
    rows = []
    for row in read_list(listed, notes):
        if row.person.lower() == LOG_NAME:
            notes.add(f"{listed.name}:{row.line}", f"a folder cannot have the name of the log, {LOG_NAME}")
        else:
            rows.append(row)
    return rows


def _copy_list(listed: Path, folder: Path) -> None:
    """Copy the list to the folder, where the layout `pubfig` looks for it."""
    name = listed.name if listed.match(LIST_NAMES) else f"{listed.stem}_urls.txt"
    copy = folder / name
    if not (copy.exists() and copy.samefile(listed)):
        write_atomically(copy, listed.read_bytes())
