"""HTTP requests of one file: where redirects may lead."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from saliency_pipeline.remote import client
from saliency_pipeline.remote.client import get_part


def redirected(monkeypatch: pytest.MonkeyPatch, *hops: str) -> None:
    """Let requests of this process be answered over some URLs, the last of which has the file."""
    yarl = pytest.importorskip("yarl")
    *history, last = (SimpleNamespace(url=yarl.URL(hop)) for hop in hops)
    headers = {"Content-Range": "bytes 0-2/3", "ETag": '"one"'}

    async def chunks(_: int) -> AsyncIterator[bytes]:
        yield b"abc"

    content = SimpleNamespace(iter_chunked=chunks)
    response = SimpleNamespace(url=last.url, history=history, status=206, headers=headers, content=content)

    @asynccontextmanager
    async def get(*_: object, **__: object) -> AsyncIterator[SimpleNamespace]:
        yield response

    ours = client._client()
    monkeypatch.setattr(ours, "session", SimpleNamespace(get=get))
    monkeypatch.setattr(ours, "moved", {})
    assert client._clients[os.getpid()] is ours


@pytest.mark.parametrize(
    "hops",
    [
        ("https://host/a.tar", "http://other/a.tar"),
        ("https://host/a.tar", "http://other/a.tar", "https://third/a.tar"),
    ],
)
def test_no_hop_of_a_redirect_is_without_encryption(hops: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    redirected(monkeypatch, *hops)
    with pytest.raises(OSError, match=r"^redirected to http://other, without encryption$"):
        get_part("https://host/a.tar", 0, 3, {})


def test_encrypted_hops_and_those_of_an_unencrypted_url_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    redirected(monkeypatch, "https://host/a.tar", "https://other/a.tar")
    assert get_part("https://host/a.tar", 0, 3, {}).data == b"abc"
    redirected(monkeypatch, "http://host/a.tar", "https://other/a.tar")
    assert get_part("http://host/a.tar", 0, 3, {}).data == b"abc"
