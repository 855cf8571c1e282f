"""`salpipe pull`: downloads what `salpipe push` uploaded, verified, of one commit; the same call resumes."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.documents import MAX_BYTES
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, publish, sha256_of
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder, refuse_link
from saliency_pipeline.hub.address import DATASET, HubAddress
from saliency_pipeline.hub.contents import LISTING, Listed, read_listing
from saliency_pipeline.hub.pulled import Origin
from saliency_pipeline.hub.repository import Repository, find_repository
from saliency_pipeline.progress import Progress

DOWNLOADS = ".downloads"
"""Subfolder of unfinished downloads, removed at the end."""

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class Pulled:
    """The result of `pull`.

    Attributes:
        folder: the folder.
        kind: `model`, a run; or `dataset`, shards.
        name: the repository, `org/name`.
        commit: its commit.
        files: number of files.
        fetched: number of files that were downloaded now.
        bytes: size of all files.
    """

    folder: str
    kind: str
    name: str
    commit: str
    files: int
    fetched: int
    bytes: int


def pull(source: str, output: Path | str, *, progress: Progress | None = None) -> Pulled:
    """Download a run or shards from the Hugging Face Hub.

    Every file is of one commit and compared with the SHA-256 that `salpipe push` recorded. Files that are in the folder
    with the same contents are kept, others are never replaced. Nothing that is downloaded is executed.

    Args:
        source: `hf://org/name` or `hf://org/name@revision`.
        output: the folder; that of an interrupted download is completed with the same commit.
        progress: receives progress.

    Raises:
        SalpipeError: no such repository, other files in the folder, or the Hub cannot be reached.
        IntegrityError: a file is not the one that was pushed.
    """
    address, folder, progress = HubAddress.parse(source), Path(output), progress or Progress()
    make_output(folder)
    with FolderLock(folder, note=progress.note):
        repository, commit = _resolve(address, folder)
        make_subfolder(folder / DOWNLOADS)
        files = _listed(repository, commit, folder / DOWNLOADS)
        missing = {name: listed for name, listed in files.items() if not _present(folder, name, listed)}
        Origin(address.name, repository.kind, address.revision, commit).write(folder)
        _check_space(folder, sum(listed.size for listed in missing.values()))
        _fetch(repository, commit, folder, missing, progress)
        if repository.kind == DATASET:
            _check_shards(folder)
        with disk_errors_explained(folder):
            shutil.rmtree(folder / DOWNLOADS)
    total = sum(listed.size for listed in files.values())
    return Pulled(str(folder), repository.kind, address.name, commit, len(files), len(missing), total)


def _resolve(address: HubAddress, folder: Path) -> tuple[Repository, str]:
    """The repository and the commit to download: that of an interrupted download, otherwise the latest.

    Raises:
        SalpipeError: the folder holds something else.
    """
    origin = Origin.read(folder)
    if origin is None:
        if others := [name for name in sorted(os.listdir(folder)) if name not in (".lock", DOWNLOADS)]:
            raise SalpipeError(f"{folder}: holds other files, such as {others[0]}; choose another folder")
        return find_repository(address)
    if origin.name != address.name or address.kind not in (None, origin.kind):
        raise SalpipeError(f"{folder}: holds {origin.name}; choose another folder")
    revision = address.revision
    exact = revision is not None and _COMMIT.fullmatch(revision) is not None
    if revision != origin.revision and not (exact and revision == origin.commit):
        raise SalpipeError(
            f"{folder}: holds revision {origin.revision or 'main'} of {origin.name}; choose another folder"
        )
    return Repository(address, origin.kind), origin.commit


def _listed(repository: Repository, commit: str, downloads: Path) -> dict[str, Listed]:
    """The files to download; the Hub's sizes are compared first, so that no file can be larger than it should be.

    Raises:
        SalpipeError: the listing is damaged.
        IntegrityError: a file is missing or has another size.
    """
    where, remote = str(repository.address), repository.files(commit)
    if LISTING not in remote or remote[LISTING].size > MAX_BYTES:
        raise IntegrityError(f"{where}: {LISTING} is missing or too large; ask its owner to push again")
    kind, _, files = read_listing(repository.read(LISTING, commit, downloads).read_bytes(), where)
    if kind != repository.kind:
        raise SalpipeError(f"{where}: {LISTING} is of a {kind}, the repository is not; ask its owner to push again")
    for name, listed in files.items():
        if name not in remote or remote[name].size != listed.size:
            raise IntegrityError(f"{where}: {name} is not the file that was pushed; ask its owner to push again")
    return files


def _present(folder: Path, name: str, listed: Listed) -> bool:
    """Return whether a file is in the folder already.

    Raises:
        SalpipeError: another file is in its place.
    """
    path = folder / name
    for place in (path.parent, path):
        if place != folder:
            refuse_link(place)
    if not os.path.lexists(path):
        return False
    with disk_errors_explained(path):
        if path.is_file() and path.stat().st_size == listed.size and sha256_of(path) == listed.sha256:
            return True
    raise SalpipeError(f"{path}: another file than in the repository, which is not replaced; choose another folder")


def _check_space(folder: Path, size: int) -> None:
    if size > (free := shutil.disk_usage(folder).free):
        raise SalpipeError(f"{folder}: {size / 1e9:,.2f} GB to download, but {free / 1e9:,.2f} GB are free; free space")


def _fetch(repository: Repository, commit: str, folder: Path, files: dict[str, Listed], progress: Progress) -> None:
    """Download files; a run or folder of shards is recognized by its last file only, so that it is whole then."""
    progress.start(len(files), "file", "downloading")
    try:
        for name in sorted(files, key=lambda name: (name in ("manifest.json", "best.safetensors"), name)):
            listed, path = files[name], folder / name
            downloaded = repository.read(name, commit, folder / DOWNLOADS)
            if downloaded.stat().st_size != listed.size or sha256_of(downloaded) != listed.sha256:
                downloaded.unlink()
                raise IntegrityError(
                    f"{repository.address}: {name} is not the file that was pushed; ask its owner to push again"
                )
            make_subfolder(path.parent, inside=folder)
            with disk_errors_explained(path):
                publish(downloaded, path)
            progress.advance(1)
    finally:
        progress.stop()


def _check_shards(folder: Path) -> None:
    """Verify downloaded shards; their hashes have been compared."""
    from saliency_pipeline.shards.verify import verify

    if problems := verify(folder).problems:
        raise IntegrityError(f"{folder}: {problems[0]}; ask the owner of the repository to push again")
