"""Download of one image from an untrusted server into a temporary file.

A server may stall, drip, redirect for ever or into the user's own network, announce a wrong length or type and send
without end. Every failure becomes one of a few outcomes.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.folders import refuse_link
from saliency_pipeline.images.magic import format_of
from saliency_pipeline.remote.session import Limits, retry_after
from saliency_pipeline.storage.failures import REFUSED
from saliency_pipeline.temporaries import temporary_name
from saliency_pipeline.text import shown

if TYPE_CHECKING:
    import aiohttp
    import yarl

LONGEST_WAIT = 60.0
"""Longest wait in seconds, of back-off and of a server's Retry-After."""

_CHUNK = 2**16
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (408, 425, 429)
_TYPES = ("application/octet-stream", "binary/octet-stream")
_HEAD = 16
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp"}


@dataclass(frozen=True)
class Download:
    """A complete download.

    Attributes:
        path: a temporary file that the caller moves or removes.
        suffix: suffix by its content: jpg, png, gif, webp, tif or bmp.
        bytes: its length.
        md5: 32 hexadecimal digits.
        status: HTTP status of the reply.
        attempts: number of attempts.
    """

    path: Path
    suffix: str
    bytes: int
    md5: str
    status: int
    attempts: int


@dataclass(eq=False)
class DownloadError(Exception):
    """An image could not be downloaded.

    Attributes:
        outcome: not-found, gone, http-error, time-out, connection-error, refused-address, redirect-loop,
            too-many-redirects, wrong-type, too-large, truncated, not-an-image or bad-url.
        detail: one short printable line.
        status: HTTP status of the last reply; None without one.
        passing: the failure may be temporary.
        wait: seconds the server asked to wait.
        unreachable: the URL's own host could not be reached.
        md5: md5 of an image with the wrong one.
        bytes: lower bound of the size of a too large image.
        attempts: number of attempts.
    """

    outcome: str
    detail: str = ""
    status: int | None = None
    passing: bool = False
    wait: float = 0.0
    unreachable: bool = False
    md5: str | None = None
    bytes: int | None = None
    attempts: int = 1

    def __post_init__(self) -> None:
        self.detail = shown(self.detail)[:200]


async def download(
    session: aiohttp.ClientSession,
    url: str,
    final: Path,
    limits: Limits,
    *,
    slots: asyncio.Semaphore,
    attempted: Callable[[DownloadError | None], bool],
) -> Download:
    """Download one image, with retries and exponential back-off after temporary failures.

    Args:
        session: a session of `new_session`.
        url: the URL in the list.
        final: final path without suffix; the temporary file is created beside it.
        limits: limits of the download.
        slots: held during an attempt, not while waiting for the next.
        attempted: called after each attempt, with None after a success; returns False to give up.

    Raises:
        DownloadError: the download failed.
        SalpipeError: the file cannot be written.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            async with slots:
                arrived = await _attempt(session, url, final, limits, attempts)
            attempted(None)
            return arrived
        except DownloadError as error:
            error.attempts = attempts
            if not attempted(error) or not error.passing or attempts > limits.retries:
                raise
            wait = error.wait or limits.backoff * 2 ** (attempts - 1) * random.uniform(0.5, 1.5)
        await asyncio.sleep(min(wait, LONGEST_WAIT))


async def _attempt(session: aiohttp.ClientSession, url: str, final: Path, limits: Limits, attempts: int) -> Download:
    """One attempt, including redirects."""
    import aiohttp

    here = _parsed(url)
    host, been = here.host, set()
    try:
        for _ in range(limits.max_redirects + 1):
            if here in been:
                raise DownloadError("redirect-loop", f"back at {here}")
            been.add(here)
            async with session.get(here, allow_redirects=False) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    return await _receive(response, final, limits, attempts)
                here = _parsed(target, here)
        raise DownloadError("too-many-redirects", f"the next would be to {here}")
    # Python's name lookup raises ValueError for names that DNS cannot encode
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _failure(error, here, own=here.host == host) from None


def _parsed(url: str, base: yarl.URL | None = None) -> yarl.URL:
    """A URL of http or https, without its fragment; relative to `base` if it is a redirect."""
    import yarl

    with suppress(ValueError):
        parsed = (base.join(yarl.URL(url)) if base else yarl.URL(url)).with_fragment(None)
        if parsed.scheme in ("http", "https") and parsed.host and parsed.port:
            return parsed
    raise DownloadError("bad-url", f"redirected to {url}" if base else url)


def _failure(error: aiohttp.ClientError | OSError | ValueError, url: yarl.URL, *, own: bool) -> DownloadError:
    """The error of an attempt without a reply; `own` is True at the URL's own host, not a redirect's."""
    import aiohttp

    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        raise SalpipeError("limit on open files reached (ulimit -n); raise it, or use fewer --jobs") from None
    if isinstance(error, aiohttp.ClientConnectorError):
        detail = f"{url.host}: {error.os_error.strerror or error.os_error}"
        if error.os_error.errno == REFUSED:
            return DownloadError("refused-address", detail)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            return DownloadError("connection-error", detail)
        # a retry does not help if a name does not exist
        passing = not isinstance(error, aiohttp.ClientConnectorDNSError) or error.os_error.errno == socket.EAI_AGAIN
        return DownloadError("connection-error", detail, passing=passing, unreachable=own)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return DownloadError("time-out", f"{url.host}: no connection", passing=True, unreachable=own)
    if isinstance(error, TimeoutError):
        return DownloadError("time-out", f"{url.host}: stalled, or too slow", passing=True)
    if isinstance(error, ValueError):  # aiohttp.InvalidURL is one
        return DownloadError("bad-url", str(url))
    if isinstance(error, aiohttp.ClientResponseError):
        return DownloadError("http-error", f"{url.host}: not HTTP: {error.message.partition(chr(10))[0]}")
    return DownloadError("connection-error", f"{url.host}: {error or type(error).__name__}", passing=True)


async def _receive(response: aiohttp.ClientResponse, final: Path, limits: Limits, attempts: int) -> Download:
    """Download the body of a reply if it is an image."""
    import aiohttp

    _check_head(response, limits)
    status = response.status
    tmp = temporary_name(final)
    digest = hashlib.md5(usedforsecurity=False)
    size, head = 0, b""
    try:
        with disk_errors_explained(final):
            refuse_link(final.parent)
            final.parent.mkdir(exist_ok=True)
            file = open(tmp, "xb", buffering=0)  # noqa: SIM115 - errors of the network are no disk errors
        with file:
            async for chunk in response.content.iter_chunked(_CHUNK):
                if (size := size + len(chunk)) > limits.max_bytes:
                    detail = f"more than {limits.max_bytes:,} bytes"
                    raise DownloadError("too-large", detail, status=status, bytes=size)
                if len(head) < _HEAD:
                    head += chunk[:_HEAD]
                    if len(head) >= _HEAD and not suffix_of(head):
                        break
                digest.update(chunk)
                with disk_errors_explained(final):
                    written = 0
                    while written < len(chunk):  # a nearly full disk writes a part
                        written += file.write(chunk[written:])
        if not (suffix := suffix_of(head)):
            raise DownloadError("not-an-image", f"begins with {head[:_HEAD]!r}", status=status)
        return Download(tmp, suffix, size, digest.hexdigest(), status, attempts)
    except aiohttp.ClientPayloadError:
        _discard(tmp)
        announced = f" of {response.content_length:,}" if response.content_length is not None else ""
        raise DownloadError("truncated", f"{size:,}{announced} bytes", status=status, passing=True) from None
    except BaseException:
        _discard(tmp)
        raise


def _discard(tmp: Path) -> None:
    """Remove a file if possible, without hiding an earlier error."""
    with suppress(OSError):
        tmp.unlink()


def _check_head(response: aiohttp.ClientResponse, limits: Limits) -> None:
    """Raise DownloadError if the headers of a reply are not those of an image, or of one that is too large."""
    status = response.status
    if status != 200:
        outcome = {404: "not-found", 410: "gone"}.get(status, "http-error")
        passing = status in _BUSY or status >= 500
        wait = retry_after(response.headers.get("Retry-After", "")) if passing else 0.0
        raise DownloadError(outcome, response.reason or "", status=status, passing=passing, wait=wait)
    kind = response.content_type.lower()
    if "Content-Type" in response.headers and not kind.startswith("image/") and kind not in _TYPES:
        raise DownloadError("wrong-type", kind, status=status)
    if (length := response.content_length) is not None and length > limits.max_bytes:
        raise DownloadError("too-large", f"{length:,} bytes", status=status, bytes=length)


def suffix_of(head: bytes) -> str | None:
    """Suffix for an image file by its first 16 bytes: jpg, png, gif, webp, tif or bmp; None for other files."""
    # the list names an image, so that a bitmap may have a header of any size
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "bmp"
    return _SUFFIXES.get(format_of(head) or "")
