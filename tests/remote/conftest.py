"""A web server for each test, and the S3 server of the tests of object storage."""

from collections.abc import Iterator

import pytest

from tests.remote.web import Files, allow, serving
from tests.storage.conftest import address, bucket, faulty, s3

__all__ = ["address", "bucket", "faulty", "s3", "web"]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A server of files at which this process may ask."""
    with serving() as state:
        allow(monkeypatch, state)
        yield state
