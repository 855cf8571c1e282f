"""Stores create objects at most once, whole, and say in one line what does not work."""

import hashlib
import threading
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.storage.store import Store, open_store
from tests.storage.s3 import Proxy

KINDS = ("s3", "memory")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of every kind."""
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('bucket')}/some/shards/")
    return open_store(f"memory://{tmp_path.name}-{id(request)}/shards")


def write(folder: Path, data: bytes) -> tuple[Path, str]:
    path = folder / "scratch"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def fetched(store: Store, name: str, size: int, folder: Path) -> tuple[bytes, str]:
    with open(folder / "fetched", "w+b") as file:
        digest = store.fetch(name, file.fileno(), size)
        return file.read(), digest


def test_what_was_put_is_read_listed_and_described(store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    path, digest = write(tmp_path, data)
    assert store.head("a/shard") is None
    assert store.put_file("a/shard", path, digest)
    assert store.create("a/b/receipt", b"{}")
    assert store.create("other", b"1")
    head = store.head("a/shard")
    assert head is not None
    assert (head.size, store.sha256("a/shard", head)) == (len(data), digest)
    assert head.sha256 == (None if store.url.startswith("memory") else digest)
    assert fetched(store, "a/shard", len(data), tmp_path) == (data, digest)
    assert store.read("a/b/receipt", 10) == b"{}"
    assert set(store.list()) == {"a/b/receipt", "a/shard", "other"}
    assert store.list()["a/shard"] == len(data)


def test_nothing_is_created_twice(store: Store, tmp_path: Path) -> None:
    path, digest = write(tmp_path, b"first")
    assert store.put_file("shard", path, digest)
    assert not store.put_file("shard", *write(tmp_path, b"second"))
    assert not store.create("shard", b"third")
    assert store.read("shard", 10) == b"first"
    store.replace("shard", b"fourth")
    assert store.read("shard", 10) == b"fourth"


def test_a_missing_object_and_one_that_is_too_large_are_named(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("missing", 10)
    store.create("large", b"12345678")
    with pytest.raises(SalpipeError, match="large: larger than 4 bytes"):
        store.read("large", 4)


def test_of_writers_at_the_same_time_one_wins(store: Store) -> None:
    created: list[bytes] = []
    start = threading.Barrier(4)

    def create(text: bytes) -> None:
        start.wait()
        if store.create("plan.json", text):
            created.append(text)

    threads = [threading.Thread(target=create, args=(str(i).encode(),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if store.url.startswith("s3"):
        assert len(created) == 1
    assert store.read("plan.json", 10) in created


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 10 MiB are sent in parts, the smallest that S3 takes, and read with several requests."""
    monkeypatch.setattr("saliency_pipeline.storage.remote.PART", 5 << 20)
    monkeypatch.setattr("saliency_pipeline.storage.remote.CHUNK", 4 << 20)


def test_parts_are_created_once_and_read_whole(in_parts: None, bucket: str, s3, tmp_path: Path) -> None:
    data = hashlib.shake_256(b"shard").digest(11 << 20)
    path, digest = write(tmp_path, data)
    store = open_store(f"s3://{bucket}/shards")
    assert store.put_file("shard", path, digest)
    # a hash of parts has their number: no SHA-256 nor MD5 of the contents
    assert s3.head_object(Bucket=bucket, Key="shards/shard")["ETag"].strip('"').endswith("-3")
    head = store.head("shard")
    assert head is not None
    assert head.sha256 == digest
    assert not store.put_file("shard", *write(tmp_path, data[::-1]))
    assert fetched(store, "shard", len(data), tmp_path) == (data, digest)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("fault", ["503", "truncate"])
def test_faults_that_pass_change_nothing(
    in_parts: None, fault: str, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    data = hashlib.shake_256(b"shard").digest(11 << 20)
    path, digest = write(tmp_path, data)
    store = open_store(f"s3://{bucket}/shards")
    failed: set[str] = set()

    def once_each(request) -> str | None:
        """The first request of every kind fails."""
        kind = f"{request.method} {request.path}"
        if kind in failed or (fault == "truncate" and request.method != "GET"):
            return None
        failed.add(kind)
        return fault

    faulty.fault = once_each
    assert store.put_file("shard", path, digest)
    assert store.create("receipt", b"{}")
    assert not store.create("receipt", b"other")
    assert store.read("receipt", 10) == b"{}"
    assert set(store.list()) == {"shard", "receipt"}
    assert fetched(store, "shard", len(data), tmp_path) == (data, digest)
    assert failed


def test_a_lost_response_and_another_writer_differ_by_the_hash(faulty: Proxy, bucket: str) -> None:
    """The object is created, the response is lost, and the repeated request finds the object."""
    faulty.fault = lambda request: "lose" if request.method == "PUT" and request.number == 0 else None
    store = open_store(f"s3://{bucket}/shards")
    assert not store.create("receipt", b"{}")
    assert store.holds("receipt", 2, hashlib.sha256(b"{}").hexdigest())
    assert not store.holds("receipt", 2, hashlib.sha256(b"[]").hexdigest())
    assert not store.holds("missing", 2, hashlib.sha256(b"{}").hexdigest())


def test_an_object_that_stays_too_short_is_an_error(bucket: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("saliency_pipeline.storage.failures.ATTEMPTS", 2)
    store = open_store(f"s3://{bucket}/shards")
    store.create("shard", b"12345")
    with pytest.raises(SalpipeError, match=f"s3://{bucket}/shards/shard: .*5 bytes instead of 9"):
        fetched(store, "shard", 9, tmp_path)


def test_a_store_that_never_answers_is_named(faulty: Proxy, bucket: str, monkeypatch) -> None:
    monkeypatch.setattr("saliency_pipeline.storage.failures.ATTEMPTS", 2)
    faulty.fault = lambda request: "503"
    with pytest.raises(SalpipeError, match=f"s3://{bucket}/shards/a: does not answer .*SlowDown"):
        open_store(f"s3://{bucket}/shards").read("a", 10)


def test_a_missing_bucket_and_missing_credentials_are_named(bucket: str, monkeypatch) -> None:
    with pytest.raises(SalpipeError, match="s3://no-such-bucket/shards/a: there is no such bucket"):
        open_store("s3://no-such-bucket/shards").read("a", 10)
    with pytest.raises(SalpipeError, match="s3://no-such-bucket/shards/a: there is no such bucket"):
        open_store("s3://no-such-bucket/shards").create("a", b"")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(SalpipeError, match=f"s3://{bucket}/shards/a: no credentials .*AWS_PROFILE"):
        open_store(f"s3://{bucket}/shards").read("a", 10)


def test_a_missing_package_is_named_with_its_command(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(SalpipeError, match=r"s3://bucket/shards: needs the package s3fs; pip install 'saliency-pipel"):
        open_store("s3://bucket/shards")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(SalpipeError, match="pip install gcsfs"):
        open_store("gs://bucket/shards")


@pytest.mark.parametrize("url", ["s3://", "s3:///", "s3://bucket/../other", "s3://bucket//shards", "nonsense://a/b"])
def test_an_impossible_url_is_refused(url: str) -> None:
    with pytest.raises(SalpipeError, match=r"URL|known"):
        open_store(url)


@pytest.mark.parametrize(
    "place", ["AKIA:hunter2@bucket/shards", "AKIA:hunt/hunter2@bucket/shards", "hunter2@bucket/shards", "a:hunter2@"]
)
@pytest.mark.parametrize("protocol", ["s3", "memory", "gs"])
def test_a_url_with_credentials_is_refused_without_showing_them(protocol: str, place: str) -> None:
    with pytest.raises(SalpipeError, match="a URL with a user name or password would be stored") as error:
        open_store(f"{protocol}://{place}")
    assert "hunt" not in str(error.value)


def test_an_at_sign_of_a_path_and_a_container_of_azure_are_no_credentials(monkeypatch) -> None:
    assert open_store("memory://host:9870/data@2/shards").url.endswith("data@2/shards")
    monkeypatch.setitem(__import__("sys").modules, "adlfs", None)
    with pytest.raises(SalpipeError, match="package adlfs"):
        open_store("abfs://container@account.dfs.core.windows.net/shards")
    with pytest.raises(SalpipeError, match="user name or password"):
        open_store("abfs://container:hunter2@account/shards")
