"""Shards on object storage are pushed through the cache of this host."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.contents import File
from saliency_pipeline.hub.push import push
from saliency_pipeline.hub.repository import Repository
from saliency_pipeline.storage import settings
from saliency_pipeline.storage.cache import CachedObject
from saliency_pipeline.storage.mirror import Mirror
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


class Held(Mirror):
    """A mirror that counts the bytes that are held at the same time."""

    now: list[int]
    most: list[int]

    @contextmanager
    def held(self, wanted: CachedObject) -> Iterator[None]:
        self.now.append(wanted.bytes)
        self.most.append(sum(self.now))
        yield
        self.now.remove(wanted.bytes)


@pytest.mark.parametrize(("limit", "held"), [(1500, [1, 1, 1, 1, 1]), (3500, [2, 2, 1]), (10**6, [5])])
def test_no_more_shards_are_held_than_the_cache_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, held: list[int]
) -> None:
    """A further one would wait forever for room that the others of its batch take."""
    monkeypatch.setenv(settings.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(settings.SIZE, str(limit))
    mirror = Held(tmp_path, "s3://bucket/shards")
    object.__setattr__(mirror, "now", [])
    object.__setattr__(mirror, "most", [])
    files = [File(f"shard-{number}", 1000, "", None, tmp_path, mirror) for number in range(5)]
    for file in files:
        (tmp_path / file.name).write_bytes(bytes(1000))
    small = File.of("manifest.json", b"{}")
    repository = Repository(HubAddress("org/figures"), "dataset")
    repository.api = SimpleNamespace(preupload_lfs_files=lambda *_, **__: None)
    counts = [count for count, _ in repository.upload([*files, small])]
    assert max(mirror.most) == 1000 * max(held) <= limit
    held[-1] += 1
    assert counts == held
