"""A web server for each test, and the S3 server of the tests of object storage."""

from collections.abc import Iterator

import pytest

from saliency_pipeline.remote.file import RemoteFile
from tests.remote.examples import content
from tests.remote.web import Files, allow, serving
from tests.storage.conftest import address, bucket, faulty, s3

__all__ = ["address", "bucket", "faulty", "requests", "s3", "web"]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A server of files at which this process may ask."""
    with serving() as state:
        allow(monkeypatch, state)
        yield state


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Requests of files whose bytes tell their offset, by range."""
    made: list[tuple[int, int]] = []

    def request(file: RemoteFile, start: int, end: int) -> bytes:
        made.append((start, end))
        return content(start, end)

    monkeypatch.setattr(RemoteFile, "request", request)
    return made
