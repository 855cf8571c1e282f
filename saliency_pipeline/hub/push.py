"""`salpipe push`: uploads a run or shards to the Hugging Face Hub, with a card; the same call resumes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.card import write_card
from saliency_pipeline.hub.contents import CARD, LISTING, Contents, File, contents_of, read_listing
from saliency_pipeline.hub.repository import Remote, Repository
from saliency_pipeline.hub.shareable import check_shareable
from saliency_pipeline.progress import Progress
from saliency_pipeline.storage.mirror import local_folder

LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "other", "unknown")
"""Licenses that messages name; the Hub has more."""

COMMITTED = 200
"""Large files per commit; the last commit has the card and the lists."""

_CREATED = {".gitattributes", CARD}


@dataclass(frozen=True)
class Pushed:
    """The result of `push`.

    Attributes:
        url: page of the repository.
        kind: `model` or `dataset`.
        commit: the commit; None for a dry run.
        files: size in bytes by name, of all files of the repository that are from salpipe.
        sent: names of the files that were sent now; with a dry run those that would be, as far as that is known.
        card: text of the card.
        private: True if the repository is private.
    """

    url: str
    kind: str
    commit: str | None
    files: dict[str, int]
    sent: tuple[str, ...]
    card: str
    private: bool


def push(
    source: Path | str,
    to: str,
    *,
    license: str | None = None,
    private: bool = True,
    revision: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Upload a run to a model, or a folder of shards to a data set, of the Hugging Face Hub.

    Of a run its best network is uploaded, without the images' names and without any path of this machine: options,
    metrics, provenance and evaluations. Files that the repository has with the same contents are not sent again.
    One commit makes all of them visible; of shards every 200 have one of their own before.

    Args:
        source: a run of `salpipe train`, or a folder of `salpipe generate`, or the URL of one on object storage.
        to: `hf://org/name`; the repository is created if it is missing.
        license: identifier of the license, such as `cc-by-4.0`; `unknown` if there is none.
        private: visibility of a new repository.
        revision: branch, created if it is missing; the default branch if it is None.
        dry_run: True to send nothing.
        progress: receives progress and notes.

    Raises:
        SalpipeError: neither a run nor shards, no license, other contents in the repository, or a refusal of the Hub.
        IntegrityError: a shard is damaged.
    """
    address, progress = HubAddress.parse(to), progress or Progress()
    if address.revision is not None:
        raise OptionError(f"{to}: name the branch with --revision {address.revision}")
    address = replace(address, revision=revision)
    check_license(license)
    folder = local_folder(source)
    contents = contents_of(folder)
    if address.kind not in (None, contents.kind):
        raise SalpipeError(f"{to}: {source} is for a repository of kind '{contents.kind}'; give hf://{address.name}")
    card = File.of(CARD, write_card(contents, address, str(license)).encode())
    check_shareable(CARD, card.data or b"", folder)
    listing = contents.listing((*contents.files, card))
    files = (*contents.files, card, listing)
    sizes = {file.name: file.size for file in files}
    text = (card.data or b"").decode()
    repository = Repository(address, contents.kind)
    if dry_run:
        return Pushed(repository.url, contents.kind, None, sizes, tuple(sizes), text, private)
    repository.create(private=private)
    head, is_private = repository.head()
    if is_private != private:
        progress.note(f"{repository.url} is {'private' if is_private else 'public'}, which is left as it is")
    remote = repository.files(head)
    _check_repository(repository, contents, remote, head)
    changed = [file for file in files if file.name not in remote or not remote[file.name].same(file)]
    commit = _send(repository, changed, head, f"salpipe: {contents.kind} of {len(files)} files", progress)
    return Pushed(repository.url, contents.kind, commit, sizes, tuple(file.name for file in changed), text, is_private)


def check_license(license: str | None) -> None:
    """Check that a license is named.

    Raises:
        OptionError: it is not, or its name is none.
    """
    if license is None:
        raise OptionError(
            f"--license: name the license of what is uploaded, such as {', '.join(LICENSES[:-2])}, other; or "
            "--license unknown"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,49}", license):
        raise OptionError(f"--license {license}: not an identifier; use one such as {', '.join(LICENSES)}")


def _check_repository(repository: Repository, contents: Contents, remote: dict[str, Remote], head: str) -> None:
    """Check that a repository is new, or holds what was pushed before.

    Raises:
        SalpipeError: it holds something else, which would be mixed up with the new files.
    """
    from tempfile import TemporaryDirectory

    address = repository.address
    if LISTING not in remote:
        # an interrupted push has files of the same names
        own = {file.name for file in contents.files}
        if others := sorted(set(remote) - _CREATED - own):
            raise SalpipeError(f"{address}: holds other files, such as {others[0]}; choose another repository")
        return
    with TemporaryDirectory() as folder:
        data = repository.read(LISTING, head, Path(folder)).read_bytes()
    kind, identity, _ = read_listing(data, str(address))
    if (kind, identity) != (contents.kind, contents.identity):
        raise SalpipeError(f"{address}: holds other shards; choose another repository, or another --revision")


def _send(repository: Repository, files: list[File], head: str, message: str, progress: Progress) -> str:
    """Upload and commit files; returns the last commit."""
    waiting: list[object] = []
    progress.start(len(files), "file", "uploading")
    try:
        for count, operations in repository.upload(files):
            waiting += operations
            progress.advance(count)
            # the card and the lists are last, so that something is left for the last commit
            if len(waiting) >= COMMITTED:
                head, waiting = repository.commit(waiting, message, head), []
        return repository.commit(waiting, message, head) if waiting else head
    finally:
        progress.stop()
