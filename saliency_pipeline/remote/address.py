"""URLs of images: which are accepted, how they are shown, and whether private addresses may be asked."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from saliency_pipeline.errors import OptionError

ALLOW_PRIVATE = "SALPIPE_ALLOW_PRIVATE"
"""Environment variable, which worker processes inherit: 1 if web servers at private addresses may be asked."""

OBJECT_STORAGE = ("s3", "gs", "gcs", "az", "abfs", "abfss")
WEB = ("https", "http")
HUB = "hf"

_QUERY = re.compile(r"(?<=://)([^\s?'\")<>]*)\?(?!\.\.\.)[^\s'\")<>]+")
_HUB = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+|[\w.-]+(?=@|$))"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/@]+|[^/@]+))?(?:/(?P<path>.+))?",
    re.ASCII,
)


def allows_private() -> bool:
    """Return whether web servers at addresses that are not public may be asked for images."""
    return os.environ.get(ALLOW_PRIVATE) == "1"


def checked_url(url: str) -> str:
    """A URL of images, without a slash at its end.

    Raises:
        OptionError: it is of no protocol that is read, is malformed or contains credentials.

    >>> checked_url("s3://bucket/imagenet/")
    's3://bucket/imagenet'
    """
    protocol, _, rest = url.partition("://")
    place = rest.partition("/")[0]
    if protocol not in (*OBJECT_STORAGE, *WEB, HUB):
        raise OptionError(
            f"{protocol}://: images are read from s3://, gs://, az://, https:// and hf://datasets/; give one of these, "
            "or a path"
        )
    user = place.rpartition("@")[0] if protocol != HUB else ""
    # in Azure's URLs a container is named there
    if user and (":" in user or protocol not in ("az", "abfs", "abfss")):
        raise OptionError(
            f"{protocol}://{place.rpartition('@')[2]}: a URL with a user name or password would be stored with the "
            "shards; leave them out, and give credentials in the environment"
        )
    if "#" in rest or not place:
        raise OptionError(f"{shown_url(url)}: not the URL of images; correct it")
    if protocol in WEB:
        parts = urlsplit(url)
        if not parts.path.strip("/") or parts.path.endswith("/"):
            raise OptionError(
                f"{shown_url(url)}: a web server lists no files; give the URL of one file: a tar, a table or an image"
            )
        return url
    url = url.rstrip("/")
    path = url.partition("://")[2]
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise OptionError(f"{shown_url(url)}: empty, . and .. are no names of folders; correct the URL")
    if protocol == HUB:
        hub_parts(url)
    return url


def shown_url(url: str) -> str:
    """A URL for messages and files, without its query, which may be a signature.

    >>> shown_url("https://host/data.tar?X-Amz-Signature=secret")
    'https://host/data.tar?...'
    """
    before, query, _ = url.partition("?")
    return f"{before}?..." if query and before.startswith(("http://", "https://")) else url


def without_queries(text: str) -> str:
    """A text in which no URL of a web server has its query: messages of libraries have those of redirects, too.

    >>> without_queries("url='https://cdn/a?Signature=secret', 3 redirects")
    "url='https://cdn/a?...', 3 redirects"
    """
    return _QUERY.sub(r"\1?...", text)


def name_of(url: str) -> str:
    """The last part of a URL's path, which names a file or folder.

    >>> name_of("https://host/a/data%20set.tar?download=1"), name_of("hf://datasets/org/birds@main")
    ('data set.tar', 'birds')
    """
    if url.startswith("hf://"):
        repository, _, path = hub_parts(url)
        return (path or repository).rpartition("/")[2]
    if url.startswith(("http://", "https://")):
        return unquote(urlsplit(url).path.rpartition("/")[2])
    return url.rpartition("/")[2]


def hub_parts(url: str) -> tuple[str, str | None, str]:
    """Repository, revision (None for the default branch) and path of a data set on the Hub.

    Raises:
        OptionError: the URL is malformed.

    >>> hub_parts("hf://datasets/org/birds@refs/convert/parquet/default")
    ('org/birds', 'refs/convert/parquet', 'default')
    """
    if (match := _HUB.fullmatch(url)) is None:
        raise OptionError(f"{shown_url(url)}: not a data set of the Hub; give hf://datasets/ORG/NAME[@REVISION][/PATH]")
    revision = match["revision"]
    return match["repository"], revision and unquote(revision), match["path"] or ""
