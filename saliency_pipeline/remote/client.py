"""HTTP requests of a process: a thread with an event loop and a session that refuses private addresses."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from saliency_pipeline.remote.address import allows_private
from saliency_pipeline.remote.session import Limits, import_aiohttp, new_session, retry_after
from saliency_pipeline.storage.failures import ChangedError, StatusError, TruncatedError

if TYPE_CHECKING:
    import aiohttp

_REDIRECTS = 5

CONNECTIONS = 16
"""Maximum number of connections to one host."""

MAX_WHOLE_BYTES = 1 << 30
"""Largest file that is requested as a whole."""


_WHOLE = "the whole file where a part was asked for: the server has no range requests"


class WholeFileError(TruncatedError):
    """A response has the whole file where a part was asked for."""


@dataclass(frozen=True)
class Part:
    """A part of a file on a web server.

    Attributes:
        data: its bytes.
        size: number of bytes of the whole file.
        tag: what identifies the file's version: ETag, else Last-Modified, else empty.
    """

    data: bytes
    size: int
    tag: str


def get_part(url: str, start: int, end: int, headers: Mapping[str, str]) -> Part:
    """Request bytes of a file, once.

    Args:
        url: the file.
        start: offset of the first byte.
        end: offset behind the last one, larger than `start`.
        headers: further headers of the request; credentials in them are not sent to other hosts.

    Raises:
        StatusError, FileNotFoundError, PermissionError: the server refuses.
        TruncatedError: the response has other bytes than those.
        OSError, aiohttp.ClientError: there is no response.
    """
    part: Part = _client().run(_get(url, start, end, headers))
    return part


class _Client:
    """The loop and session of one process."""

    def __init__(self) -> None:
        import_aiohttp()
        self.private = allows_private()
        self.moved: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self.session: aiohttp.ClientSession = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> aiohttp.ClientSession:
        return new_session(Limits(timeout=30.0, allow_private=self.private), per_host=CONNECTIONS)

    def run(self, coroutine: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.session.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_clients: dict[int, _Client] = {}  # by process
_lock = threading.Lock()


def _client() -> _Client:
    """The client of this process; that of a parent process has no thread here."""
    with _lock:
        client = _clients.get(os.getpid())
        if client is None or client.private != allows_private():
            if client is not None:
                client.close()
            _clients.clear()
            client = _clients[os.getpid()] = _Client()
        return client


def close() -> None:
    """Close this process's connections."""
    with _lock:
        if (client := _clients.pop(os.getpid(), None)) is not None:
            client.close()


atexit.register(close)


async def _get(url: str, start: int, end: int, headers: Mapping[str, str]) -> Part:
    import aiohttp

    client = _clients[os.getpid()]
    here = client.moved.get(url, url)
    # as for redirects, credentials are for one server only
    own = urlsplit(here)[:2] == urlsplit(url)[:2]
    asked = {"Accept": "*/*", "Range": f"bytes={start}-{end - 1}", **(headers if own else {})}
    try:
        async with client.session.get(here, headers=asked, max_redirects=_REDIRECTS) as response:
            # also a hop that leads back: who changes it decides where
            for hop in (*(each.url for each in response.history), response.url) if url.startswith("https:") else ():
                if hop.scheme != "https":
                    raise OSError(f"redirected to {hop.scheme}://{hop.host}, without encryption")
            if response.status not in (200, 206):
                if response.status in (401, 403, 404, 410) and client.moved.pop(url, ""):
                    # addresses of redirects expire
                    raise TruncatedError(f"HTTP {response.status} where it had been redirected to")
                _refused(response)
            part = await _part(response, start, end)
            if response.history:
                client.moved[url] = str(response.url)
            return part
    except aiohttp.TooManyRedirects:
        raise OSError(f"more than {_REDIRECTS} redirects") from None


async def _part(response: aiohttp.ClientResponse, start: int, end: int) -> Part:
    """The part in a response."""
    size = _size_of(response, start, end)
    most = (end if size is None else min(end, size)) - start
    data = bytearray()
    async for chunk in response.content.iter_chunked(1 << 20):
        data += chunk
        if len(data) > most:
            break
    if size is None:
        if len(data) > most:
            raise WholeFileError(_WHOLE)
        size = len(data)
    elif len(data) != most:
        raise TruncatedError(f"{'more' if len(data) > most else f'{len(data):,}'} instead of {most:,} bytes")
    # a weak one, too, names the version; of compressed responses none are taken
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return Part(bytes(data), size, tag)


def _size_of(response: aiohttp.ClientResponse, start: int, end: int) -> int | None:
    """The size of the file whose part a response has; None if it has the whole file without its size."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TruncatedError("a compressed response, which was not asked for")
    if response.status == 200:
        length = response.content_length
        if start or (length or 0) > end:
            raise WholeFileError(_WHOLE)
        return length
    unit, _, text = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = text.partition("/")
    first, _, last = span.partition("-")
    with suppress(ValueError):
        if unit == "bytes" and int(first) == start and int(last) == min(end, int(total)) - 1:
            return int(total)
    raise TruncatedError("another part than was asked for")


def _refused(response: aiohttp.ClientResponse) -> None:
    """Raise the error of a status that is none of success."""
    status, reason = response.status, response.reason or ""
    if status in (404, 410):
        raise FileNotFoundError(f"HTTP {status}")
    if status in (401, 403):
        raise PermissionError(f"HTTP {status} {reason}")
    if status in (412, 416):
        raise ChangedError(f"HTTP {status} {reason}: it is shorter than when it was listed")
    raise StatusError(status, reason, retry_after(response.headers.get("Retry-After", "")))
