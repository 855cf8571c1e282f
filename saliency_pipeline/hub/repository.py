"""`Repository`: files of a repository on the Hugging Face Hub, through `huggingface_hub`; its errors in one line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.hub.address import KINDS, HubAddress
from saliency_pipeline.hub.contents import LISTING, File
from saliency_pipeline.storage.cache import ShardCache
from saliency_pipeline.text import one_line

TOGETHER = 8
"""Large files that are uploaded at the same time."""

_LOG_IN = "run 'hf auth login', or set HF_TOKEN"
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")


@dataclass(frozen=True)
class Remote:
    """A file of a repository: size in bytes, SHA-256 of a large one, Git's hash of a small one."""

    size: int
    sha256: str | None
    git: str

    def same(self, file: File) -> bool:
        """Return whether a file has the same contents."""
        if self.sha256 is not None or file.data is None:
            return self.sha256 == file.sha256
        return self.git == hashlib.sha1(b"blob %d\0" % file.size + file.data).hexdigest()


class Repository:
    """A repository; nothing is requested before a method is called.

    Raises:
        SalpipeError: by all methods, if the Hub refuses or cannot be reached.
    """

    def __init__(self, address: HubAddress, kind: str) -> None:
        from huggingface_hub import HfApi

        self.address, self.kind = address, kind
        self.api = HfApi(library_name="salpipe")
        self._common: dict[str, Any] = {"repo_id": address.name, "repo_type": kind}

    @property
    def url(self) -> str:
        """Address of its page."""
        return f"{self.api.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.address.name}"

    def create(self, *, private: bool) -> None:
        """Create the repository and the branch of the address, if they are missing."""
        with explained(self.address):
            self.api.create_repo(**self._common, private=private, exist_ok=True)
            if self.address.revision is not None:
                self.api.create_branch(**self._common, branch=self.address.revision, exist_ok=True)

    def head(self) -> tuple[str, bool]:
        """Commit of the address's revision, and True if the repository is private."""
        with explained(self.address):
            info = self.api.repo_info(**self._common, revision=self.address.revision)
            return str(info.sha), bool(info.private)

    def files(self, commit: str) -> dict[str, Remote]:
        """All files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        with explained(self.address):
            tree = self.api.list_repo_tree(**self._common, revision=commit, recursive=True)
            return {
                entry.path: Remote(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
                for entry in tree
                if isinstance(entry, RepoFile)
            }

    def upload(self, files: Sequence[File]) -> Iterator[tuple[int, Any]]:
        """Upload the contents of files, a few at a time, without a commit yet.

        What the Hub has already, as after a kill, is not sent again.

        Yields:
            The number of files, and their operations for `commit`.
        """
        from huggingface_hub import CommitOperationAdd

        for some in _batches(files):
            with ExitStack() as stack, explained(self.address), _without_bars():
                operations = [CommitOperationAdd(file.name, stack.enter_context(file.opened())) for file in some]
                self.api.preupload_lfs_files(
                    self.address.name, operations, repo_type=self.kind, revision=self.address.revision
                )
                for operation in operations:
                    # small files become part of the commit, and must not depend on a file that may change until then
                    if isinstance(operation.path_or_fileobj, str):
                        operation.path_or_fileobj = Path(operation.path_or_fileobj).read_bytes()
            yield len(some), operations

    def commit(self, operations: Sequence[Any], message: str, parent: str) -> str:
        """Commit uploaded files on top of a commit; returns the new one."""
        with explained(self.address), _without_bars():
            made = self.api.create_commit(
                **self._common,
                operations=list(operations),
                commit_message=message,
                revision=self.address.revision,
                parent_commit=parent,
            )
        return str(made.oid)

    def read(self, name: str, commit: str, folder: Path) -> Path:
        """Download a file of a commit into a folder, where an interrupted download is continued; returns its path."""
        with explained(self.address), _without_bars():
            path = self.api.hf_hub_download(
                self.address.name, name, repo_type=self.kind, revision=commit, local_dir=folder
            )
        return Path(path)


def _batches(files: Sequence[File]) -> Iterator[list[File]]:
    """A few files at a time; of shards on object storage those that the cache holds together.

    A fetch waits until there is room for its shard, and all shards of a batch stay in the cache until it is sent.
    """
    # room for one that another process fetches
    largest = max((file.size for file in files if file.mirror), default=0)
    batch: list[File] = []
    held = room = 0
    for file in files:
        size = file.size if file.mirror else 0
        if len(batch) == TOGETHER or (size and held and held + size > room):
            yield batch
            batch, held = [], 0
        if size and not held:
            room = ShardCache().limit() - largest
        batch.append(file)
        held += size
    if batch:
        yield batch


def find_repository(address: HubAddress) -> tuple[Repository, str]:
    """The repository of an address that `salpipe push` made, of whichever kind, and the commit of its revision.

    Raises:
        SalpipeError: there is none, or one of each kind.
    """
    missing: SalpipeError | None = None
    matches = []
    for kind in KINDS if address.kind is None else (address.kind,):
        repository = Repository(address, kind)
        try:
            commit, _ = repository.head()
        except MissingError as error:
            # a missing revision says more than a missing repository of the other kind
            missing = error if missing is None or "revision" in str(error) else missing
            continue
        matches.append((repository, commit))
    if not matches:
        assert missing is not None
        raise missing
    own = [(repository, commit) for repository, commit in matches if LISTING in repository.files(commit)]
    if not own:
        raise SalpipeError(f"{address}: has no {LISTING}, so that 'salpipe push' did not make it; give another one")
    if len(own) > 1:
        raise SalpipeError(
            f"{address}: there is a model and a data set of this name; give hf://models/{address.name} or "
            f"hf://datasets/{address.name}"
        )
    return own[0]


class MissingError(SalpipeError):
    """There is no such repository or revision, as far as this user can see."""


@contextmanager
def explained(address: HubAddress) -> Iterator[None]:
    """Turn errors of `huggingface_hub` into one line with a remedy; never with a token.

    Raises:
        SalpipeError: the Hub refuses or cannot be reached.
    """
    from huggingface_hub import errors

    try:
        yield
    except SalpipeError:
        raise
    except errors.LocalTokenNotFoundError as error:
        raise SalpipeError(f"{address}: not logged in to the Hub; {_LOG_IN}") from error
    except errors.GatedRepoError as error:
        raise SalpipeError(f"{address}: access must be requested; open its page on the Hub, and {_LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise MissingError(
            f"{address}: no such repository, or no access to it; correct the name, or {_LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(f"{address}: the repository has no such revision; correct it") from error
    except errors.OfflineModeIsEnabled as error:
        raise SalpipeError(f"{address}: HF_HUB_OFFLINE is set; unset it to use the Hub") from error
    except errors.HFValidationError as error:
        raise SalpipeError(f"{address}: not a name of a repository ({one_line(error)}); correct it") from error
    except errors.HfHubHTTPError as error:
        raise _refused(address, error) from error
    except Exception as error:  # those of the HTTP library and of hf_xet share no class
        if (line := _unreachable(address, error)) is None:
            raise
        raise line from error


def _refused(address: HubAddress, error: Any) -> SalpipeError:
    status = getattr(error.response, "status_code", 0)
    reason = one_line(getattr(error, "server_message", None) or f"status {status}", 200)
    if status == 401:
        return SalpipeError(f"{address}: not logged in to the Hub; {_LOG_IN}")
    if status == 403:
        return SalpipeError(f"{address}: no permission ({reason}); use a token that may write there: {_LOG_IN}")
    if status in (409, 412):
        return SalpipeError(f"{address}: was changed at the same time ({reason}); run the same command again")
    if status == 429 or status >= 500:
        return SalpipeError(f"{address}: the Hub cannot do that now ({reason}); run the same command again later")
    return SalpipeError(f"{address}: the Hub refused ({reason}); correct that and run the same command again")


def _unreachable(address: HubAddress, error: BaseException) -> SalpipeError | None:
    """The error of a connection, or of an upload that names it as its cause; None for any other."""
    from huggingface_hub.errors import HfHubHTTPError

    each: BaseException | None = error
    while each is not None:
        if isinstance(each, HfHubHTTPError):
            return _refused(address, each)
        package = type(each).__module__.partition(".")[0]
        if isinstance(each, ConnectionError | TimeoutError) or package in _NETWORK or "xet" in str(each).lower():
            return SalpipeError(
                f"{address}: the Hub cannot be reached ({one_line(each, 120)}); check the network and run the same "
                "command again"
            )
        if type(each).__name__ == "LocalEntryNotFoundError":
            return SalpipeError(
                f"{address}: the Hub cannot be reached; check the network and run the same command again"
            )
        each = each.__cause__
    return None


@contextmanager
def _without_bars() -> Iterator[None]:
    """Context without the library's progress bars, in whose place are those of the command."""
    from huggingface_hub import utils

    bars: Any = utils
    # the variable has precedence, and the library warns of calls that contradict it
    if bars.are_progress_bars_disabled() or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()
