"""One S3 server for all tests of a process, a bucket of its own for each."""

from collections.abc import Iterator

import pytest

from tests.conversion.conftest import exports, shards
from tests.storage.s3 import Proxy, client, proxy, server, use

__all__ = ["address", "bucket", "exports", "faulty", "s3", "shards"]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    with server() as place:
        yield place


@pytest.fixture
def s3(address: str):
    """boto3's client of the server."""
    return client(address)


@pytest.fixture
def bucket(address: str, s3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, which the environment leads to."""
    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**12}"
    s3.create_bucket(Bucket=name)
    use(monkeypatch, address)
    return name


@pytest.fixture
def faulty(bucket: str, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that the environment leads to instead of the server."""
    with proxy(address) as state:
        use(monkeypatch, state.address)
        yield state
