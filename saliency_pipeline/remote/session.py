"""HTTP sessions for untrusted servers: limits, and no connection into the user's own network."""

from __future__ import annotations

import ipaddress
import math
import re
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.settings import check_settings, documented, setting
from saliency_pipeline.storage.failures import REFUSED

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

_TOTAL = 10
"""Longest duration of an attempt in time-outs: a server that drips bytes never times out otherwise."""

_IDLE = 2.0
"""Seconds an idle connection is kept: with thousands of hosts they would exceed the limit on open files."""

_MANY = 1024
"""Limit on open files from which on connections are kept for further requests."""

# Listed here, since `ipaddress.is_global` differs between versions of Python: the IANA registries of special-purpose
# addresses (RFC 6890 and its updates), and 168.63.129.16, which is the platform itself on machines of Azure.
_SPECIAL = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
)
_NOT_PUBLIC_4 = tuple(map(ipaddress.IPv4Network, _SPECIAL.split()))
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""Public IPv6 addresses; the rest is reserved, local or multicast."""

_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_WRAPPED = tuple(
    (ipaddress.IPv6Network(network), bits)
    for network, bits in (("::ffff:0:0/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
)
"""Networks whose addresses embed an IPv4 address, and the number of bits behind it: mapped, NAT64, 6to4."""


@documented
@dataclass(frozen=True)
class Limits:
    """Limits of time, size and addresses for downloads.

    `max_redirects` are followed. The first retry waits `backoff` seconds on average, each further one twice as long.
    """

    timeout: float = setting(
        20.0,
        "Timeout for connecting and between two parts of a response; an attempt may take ten times as long.",
        range=(1e-3, 600),
        metavar="SECONDS",
    )
    retries: int = setting(
        3, "Retries after failures that may be temporary, with growing delays.", range=(0, 20), metavar="N"
    )
    max_bytes: int = setting(20_000_000, "Maximum size of an image.", range=(1, 1 << 30), metavar="BYTES")
    allow_private: bool = setting(False, "Also connect to private, loopback and other non-public addresses.")
    max_redirects: int = 5
    backoff: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self)


def new_session(limits: Limits, *, per_host: int, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """A session without cookies and proxies that connects to public addresses only.

    Addresses are checked when a socket is created, after names are resolved: for every redirect, for addresses in
    URLs, and against DNS rebinding. A proxy would resolve names itself, and is never used.

    Raises:
        SalpipeError: aiohttp is not installed.
    """
    import_aiohttp()
    import aiohttp

    def make_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, (host, *_) = address
        if not limits.allow_private and not is_public(host):
            raise OSError(REFUSED, f"{host} is not an address of the public Internet")
        return socket.socket(family, kind, protocol)

    idle: dict[str, Any] = {"force_close": True} if _open_files() < _MANY else {"keepalive_timeout": _IDLE}
    # the threaded resolver, since errors of aiodns do not distinguish names that do not exist
    resolver = resolver or aiohttp.ThreadedResolver()
    connector = aiohttp.TCPConnector(
        limit=0, limit_per_host=per_host, socket_factory=make_socket, resolver=resolver, **idle
    )
    seconds = limits.timeout
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=_TOTAL * seconds, sock_connect=seconds, sock_read=seconds),
        headers={"User-Agent": user_agent(), "Accept": "image/*", "Accept-Encoding": "identity"},
    )


def import_aiohttp() -> None:
    """Raise SalpipeError if aiohttp is not installed."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise SalpipeError("reading from web servers needs aiohttp; pip install 'saliency-pipeline[fetch]'") from None


def possible_downloads(jobs: int) -> int:
    """Number of concurrent downloads, of `jobs` at most, that the limit on open files allows; at least 1.

    Each takes a connection, a file, and the files of a name lookup; the process itself has some.
    """
    return int(max(1, min(jobs, (_open_files() - 24) // 4)))


def _open_files() -> float:
    """Limit on open files of this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def user_agent() -> str:
    """The User-Agent header of requests."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return f"salpipe/{version('saliency-pipeline')} (research data set retrieval)"
    except PackageNotFoundError:
        return "salpipe (research data set retrieval)"


def retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which may be a date; 0 if it is invalid."""
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return float(value)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0


def is_public(host: str) -> bool:
    """True if an address is public, as is the IPv4 address that it embeds, if any.

    >>> is_public("93.184.216.34"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("64:ff9b::7f00:1")
    (True, False, False, False)
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # of a network that is this machine's own
            return False
        behind = next((bits for network, bits in _WRAPPED if address in network), None)
        if behind is None:
            return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_6)
        address = ipaddress.IPv4Address(int(address) >> behind & 0xFFFFFFFF)
    return not any(address in network for network in _NOT_PUBLIC_4)
