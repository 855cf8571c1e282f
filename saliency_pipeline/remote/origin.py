"""`Origin`: what lies at a URL of images, as it is at one time: names, sizes and versions of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.remote.address import (
    HUB,
    OBJECT_STORAGE,
    WEB,
    checked_url,
    hub_parts,
    name_of,
    shown_url,
)
from saliency_pipeline.remote.file import RemoteFile, attempted, hub_endpoint, store_of
from saliency_pipeline.remote.session import retry_after
from saliency_pipeline.storage.failures import StatusError, TruncatedError
from saliency_pipeline.text import one_line


@dataclass(frozen=True)
class Origin:
    """The files at a URL.

    Attributes:
        url: the URL as it was requested, without its query.
        name: name of the file or folder there.
        revision: what identifies their versions: the commit on the Hub; else SHA-256 of names, sizes and tags.
        files: the files by name, relative to the folder; a single file has the empty name.
    """

    url: str
    name: str
    revision: str
    files: dict[str, RemoteFile]

    @property
    def is_file(self) -> bool:
        """True if the URL is that of one file."""
        return "" in self.files

    @property
    def pin(self) -> dict[str, str]:
        """URL and revision, which a plan stores."""
        return {"url": self.url, "revision": self.revision}


def find_origin(url: str, pinned: dict[str, str] | None = None) -> Origin:
    """List what lies at a URL.

    Args:
        url: folder or file on object storage or the Hub, or file on a web server.
        pinned: URL and revision of an earlier run, which must not differ; a branch of the Hub is read at that commit.

    Raises:
        OptionError: the URL is none of images.
        SalpipeError: there is nothing, access is denied, or it has changed.
    """
    url = checked_url(url)
    protocol = url.partition("://")[0]
    before = pinned["revision"] if pinned and pinned.get("url") == shown_url(url) else None
    if protocol in OBJECT_STORAGE:
        origin = _of_storage(url)
    elif protocol == HUB:
        origin = _of_hub(url, before)
    else:
        assert protocol in WEB
        origin = _of_web(url)
    if not origin.files:
        raise SalpipeError(f"{shown_url(url)}: no files there; check the URL")
    if before not in (None, origin.revision):
        raise SalpipeError(
            f"{shown_url(url)}: has changed since the output was begun (revision {str(before)[:12]} is now "
            f"{origin.revision[:12]}); restore it, or choose another output folder"
        )
    return origin


def _of_storage(url: str) -> Origin:
    store, name = store_of(url)
    single, entries = store.entries(name)
    base = url if single or not name else f"{store.url}/{name}"
    folders = {each.rpartition("/")[0] for each in entries}
    files = {
        each: RemoteFile(base if single else f"{base}/{each}", size, tag)
        for each, (size, tag) in entries.items()
        # empty objects that stand for folders, which some tools create
        if single or not (each.endswith("/") or (not size and each in folders))
    }
    return Origin(url, name_of(url), _revision(files), files)


def _of_web(url: str) -> Origin:
    from saliency_pipeline.remote.client import Part, WholeFileError, get_part

    def first_byte() -> Part:
        try:
            return get_part(url, 0, 1, {})
        except WholeFileError as error:
            raise SalpipeError(
                f"{shown_url(url)}: its server has no range requests; download the file, and give its path"
            ) from error

    # the first byte tells whether there are ranges, and the size; HEAD is often refused, and so not tried
    part = attempted(url, first_byte)
    files = {"": RemoteFile(url, part.size, part.tag)}
    return Origin(shown_url(url), name_of(url), _revision(files), files)


def _of_hub(url: str, pinned: str | None) -> Origin:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repository, revision, path = hub_parts(url)
    api = HfApi(endpoint=hub_endpoint())
    # a branch is resolved once: what follows, and a resumed run, sees one commit whatever is pushed meanwhile
    commit = pinned or str(_asked(url, lambda: api.repo_info(repository, repo_type="dataset", revision=revision).sha))
    base = f"hf://datasets/{repository}@{commit}"
    where: dict[str, Any] = {"repo_id": repository, "revision": commit, "repo_type": "dataset"}
    entries: list[Any] = []
    single = False
    if path:
        entries = _asked(url, lambda: list(api.get_paths_info(paths=[path], **where)))
        single = any(isinstance(entry, RepoFile) for entry in entries)
    if not single and (entries or not path):
        entries = _asked(url, lambda: list(api.list_repo_tree(path_in_repo=path or None, recursive=True, **where)))
    before = path if single else f"{path}/" if path else ""
    files = {
        entry.path.removeprefix(before): RemoteFile(f"{base}/{entry.path}", int(entry.size), str(entry.blob_id))
        for entry in entries
        if isinstance(entry, RepoFile) and entry.path.startswith(before)
    }
    return Origin(url, name_of(url), commit, dict(sorted(files.items())))


def _asked(url: str, call: Callable[[], Any]) -> Any:
    """The response of the Hub's interface, with as many attempts as it takes."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    def once() -> Any:
        try:
            return call()
        except HFValidationError as error:
            raise OptionError(f"{url}: {one_line(error)}; correct the URL") from error
        except OfflineModeIsEnabled as error:
            raise OptionError(f"{url}: HF_HUB_OFFLINE is set; unset it to use the Hub") from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403, 404):
                raise SalpipeError(
                    f"{url}: not on the Hub, or not accessible (HTTP {status}); check name and revision, and set "
                    "HF_TOKEN if access is restricted"
                ) from error
            raise StatusError(status, "", retry_after(error.response.headers.get("Retry-After", ""))) from error
        except (ValueError, KeyError, TypeError) as error:
            raise TruncatedError(f"not a response of the Hub ({one_line(error, 80)})") from error

    return attempted(url, once)


def _revision(files: Mapping[str, RemoteFile]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(json.dumps([name, file.size, file.tag]).encode() + b"\n")
    return digest.hexdigest()
