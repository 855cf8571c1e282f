"""`RemoteFile`: one version of a file on object storage, a web server or the Hub, read by ranges."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.remote.address import HUB, OBJECT_STORAGE, hub_parts, shown_url, without_queries
from saliency_pipeline.storage.failures import ChangedError, retried
from saliency_pipeline.storage.mirror import kept_store
from saliency_pipeline.storage.remote import RemoteStore

if TYPE_CHECKING:
    from saliency_pipeline.remote.ahead import ReadAhead

T = TypeVar("T")

MOST = 8
"""Maximum number of requests at a time to one server."""

_EASED = 32
"""Successful requests after which one more is made at a time, once a server had asked for fewer."""


class RemoteError(SalpipeError):
    """A remote file has changed or cannot be read: no fault of what it contains."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One version of a remote file; safe to use from several threads and to send to other processes.

    Attributes:
        url: its URL; one on the Hub names the commit.
        size: number of its bytes.
        tag: what identifies the version, such as the ETag; empty if nothing does.
    """

    url: str
    size: int
    tag: str = ""

    def read(self, length: int, offset: int) -> bytes:
        """Bytes from an offset, fewer at the end of the file; taken from what was read ahead, else requested.

        Raises:
            RemoteError: the file has changed, or its server fails in every attempt. A response with other bytes than
                were asked for is such a failure.
        """
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        for ahead in list(_ahead):
            if (data := ahead.read(self, length, offset)) is not None:
                return data
        return self.request(offset, offset + length)

    def request(self, start: int, end: int) -> bytes:
        """Bytes from one offset to another, requested with as many attempts as it takes; raises as `read`."""
        return attempted(self.url, lambda: self._once(start, end))

    def _once(self, start: int, end: int) -> bytes:
        if self.url.partition("://")[0] in OBJECT_STORAGE:
            store, name = store_of(self.url)
            return store.read_range(name, start, end, self.tag)
        from saliency_pipeline.remote.client import get_part

        url, headers = web_address(self.url)
        part = get_part(url, start, end, headers)
        # a commit of the Hub never changes, and its files lie on several servers with tags of their own
        if part.size != self.size:
            raise ChangedError(f"has changed since it was listed: {part.size:,} bytes instead of {self.size:,}")
        if self.tag and part.tag != self.tag and not self.url.startswith("hf://"):
            raise ChangedError("has changed since it was listed: another ETag or Last-Modified")
        return part.data


# what is being read ahead in this process
_ahead: list[ReadAhead] = []


@contextmanager
def held_by(ahead: ReadAhead) -> Iterator[None]:
    """Let all files read from what is read ahead."""
    _ahead.append(ahead)
    try:
        yield
    finally:
        _ahead.remove(ahead)


def attempted(url: str, call: Callable[[], T]) -> T:
    """Call a function that makes a request, with pauses between attempts, and few at a time where a server asks so.

    Raises:
        RemoteError: there is no such file, access is denied, or every attempt fails; names the URL without its query.
    """
    place, gate = shown_url(url), _gate_of(url)

    def once() -> T:
        with gate:
            return call()

    try:
        return retried(place, once, gate.throttled)
    except FileNotFoundError as error:
        raise RemoteError(f"{place}: there is no such file; check the URL") from error
    except OptionError:
        raise
    except SalpipeError as error:
        raise RemoteError(without_queries(str(error))) from error


class Gate:
    """Number of requests that are made at a time to one server: halved when it asks for fewer, then slowly raised."""

    def __init__(self, most: int = MOST) -> None:
        self.most = self.limit = most
        self._active = self._good = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._active -= 1
            self._good = self._good + 1 if kind is None else 0
            if self._good >= _EASED and self.limit < self.most:
                self.limit, self._good = self.limit + 1, 0
            self._changed.notify_all()

    def throttled(self, _: float = 0.0) -> None:
        """Make fewer requests at a time from now on."""
        with self._changed:
            self.limit, self._good = max(1, self.limit // 2), 0


_gates: dict[tuple[int, str], Gate] = {}
_lock = threading.Lock()


def _gate_of(url: str) -> Gate:
    parts = urlsplit(url)
    key = os.getpid(), parts.scheme if parts.scheme in (*OBJECT_STORAGE, HUB) else parts.netloc
    with _lock:
        return _gates.setdefault(key, Gate())


def store_of(url: str) -> tuple[RemoteStore, str]:
    """The store of a bucket or container, one per process, and the name of an object or folder in it."""
    protocol, _, path = url.partition("://")
    bucket, _, name = path.partition("/")
    store = kept_store(f"{protocol}://{bucket}")
    assert isinstance(store, RemoteStore)
    return store, name


def web_address(url: str) -> tuple[str, dict[str, str]]:
    """The URL of a web server at which a file is, and the headers of requests for it."""
    if not url.startswith("hf://"):
        return url, {}
    from huggingface_hub import get_token

    repository, revision, path = hub_parts(url)
    token = get_token()
    place = f"{hub_endpoint()}/datasets/{repository}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"
    return place, {"Authorization": f"Bearer {token}"} if token else {}


def hub_endpoint() -> str:
    """The address of the Hub, or of another that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
