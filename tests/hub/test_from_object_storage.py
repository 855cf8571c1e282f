"""Shards on object storage are pushed through the cache of this host."""

from pathlib import Path

import pytest

from saliency_pipeline.hub.push import push
from tests.hub.fake_hub import FakeHub
from tests.storage.s3 import client, server, use


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_shards_of_a_url_are_pushed(
    hub: FakeHub, shards: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server() as address:
        use(monkeypatch, address)
        s3 = client(address)
        s3.create_bucket(Bucket="flowers")
        for path in shards.iterdir():
            s3.upload_file(str(path), "flowers", f"data/{path.name}")
        push("s3://flowers/data", "hf://org/figures", license="mit")
    files = hub.files("datasets", "org/figures")
    assert {name: files[name] for name in (path.name for path in shards.iterdir())} == {
        path.name: path.read_bytes() for path in shards.iterdir()
    }
    assert not any(b"s3://" in data for data in files.values())
