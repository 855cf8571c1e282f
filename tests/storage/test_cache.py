"""The cache fetches each object once, verifies it, stays within its limit, and removes only what it fetched."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from saliency_pipeline.errors import IntegrityError, OptionError
from saliency_pipeline.storage.cache import CachedObject, ShardCache
from saliency_pipeline.storage.settings import CacheSettings
from tests.kills import script
from tests.storage.local import LocalStore

SIZE = 1000


class Counted(LocalStore):
    """A folder that counts what is fetched from it; `spoilt` downloads come with other bytes."""

    def __init__(self, folder: Path, spoilt: int = 0) -> None:
        super().__init__(folder)
        self.fetched: list[str] = []
        self.spoilt = spoilt

    def fetch(self, name: str, file: int, size: int) -> str:
        digest = super().fetch(name, file, size)
        # after the bytes, so that a process that is killed here has them
        self.fetched.append(name)
        if self.spoilt:
            self.spoilt -= 1
            os.pwrite(file, b"?", 0)
            return hashlib.sha256(os.pread(file, size, 0)).hexdigest()
        return digest


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    """Five objects of `SIZE` bytes."""
    folder = tmp_path / "store"
    folder.mkdir()
    for number in range(5):
        (folder / f"shard-{number}").write_bytes(contents(number))
    return Counted(folder)


def contents(number: int) -> bytes:
    return hashlib.shake_256(str(number).encode()).digest(SIZE)


def cache(tmp_path: Path, shards: float = 2) -> ShardCache:
    return ShardCache(CacheSettings(tmp_path / "cache", int(shards * SIZE)))


def wanted(tmp_path: Path, number: int, key: str = "a") -> CachedObject:
    digest = hashlib.sha256(contents(number)).hexdigest()
    return CachedObject(tmp_path / "cache" / (64 * key) / "shards", f"shard-{number}", SIZE, digest)


def read(cache: ShardCache, each: CachedObject, store: Counted) -> bytes:
    file = cache.open(each, lambda: store)
    try:
        return os.pread(file, 2 * SIZE, 0)
    finally:
        os.close(file)


def stored(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").glob("*/shards/*") if path.is_file()}


def held(tmp_path: Path, small: ShardCache) -> int:
    """Number of files, while no process begins, renames or removes one."""
    with small._making_room():
        return len(stored(tmp_path))


def test_an_object_is_fetched_once(tmp_path: Path, store: Counted) -> None:
    for _ in range(3):
        assert read(cache(tmp_path), wanted(tmp_path, 1), store) == contents(1)
    assert store.fetched == ["shard-1"]
    assert stored(tmp_path) == {"shard-1"}


def test_the_least_recently_used_goes_and_the_limit_holds(tmp_path: Path, store: Counted) -> None:
    small = cache(tmp_path)
    for number in (0, 1, 0, 2, 0, 1, 3):
        assert read(small, wanted(tmp_path, number), store) == contents(number)
        assert len(stored(tmp_path)) <= 2
    assert store.fetched == [f"shard-{number}" for number in (0, 1, 2, 1, 3)]
    assert stored(tmp_path) == {"shard-1", "shard-3"}


def test_other_bytes_are_fetched_again_once_and_then_named(tmp_path: Path, store: Counted) -> None:
    store.spoilt = 1
    assert read(cache(tmp_path), wanted(tmp_path, 0), store) == contents(0)
    assert store.fetched == ["shard-0"] * 2
    (store.folder / "shard-1").write_bytes(contents(2))
    with pytest.raises(IntegrityError, match=r"store/shard-1: its SHA-256 is .* twice in succession; delete it"):
        read(cache(tmp_path), wanted(tmp_path, 1), store)
    (store.folder / "shard-2").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="store/shard-2: 5 bytes instead of the 1,000 in the manifest"):
        read(cache(tmp_path), wanted(tmp_path, 2), store)
    (store.folder / "shard-3").unlink()
    with pytest.raises(IntegrityError, match="store/shard-3: there is no such object"):
        read(cache(tmp_path), wanted(tmp_path, 3), store)
    assert stored(tmp_path) == {"shard-0"}


def test_what_is_being_read_stays(tmp_path: Path, store: Counted) -> None:
    small = cache(tmp_path)
    file = small.open(wanted(tmp_path, 0), lambda: store)
    for number in (1, 2, 3):
        read(small, wanted(tmp_path, number), store)
        assert "shard-0" in stored(tmp_path)
        assert len(stored(tmp_path)) == 2
    assert os.pread(file, SIZE, 0) == contents(0)
    os.close(file)
    read(small, wanted(tmp_path, 1), store)
    read(small, wanted(tmp_path, 2), store)
    assert "shard-0" not in stored(tmp_path)


def test_a_fetch_waits_for_room(tmp_path: Path, store: Counted) -> None:
    """All that is there is being read; as soon as one reader ends, its file makes room."""
    small = cache(tmp_path)
    files = [small.open(wanted(tmp_path, number), lambda: store) for number in (0, 1)]
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(read(small, wanted(tmp_path, 2), store)))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    assert stored(tmp_path) == {"shard-0", "shard-1"}
    os.close(files[0])
    thread.join(10)
    os.close(files[1])
    assert got == [contents(2)]
    assert stored(tmp_path) == {"shard-1", "shard-2"}


def test_what_was_not_fetched_is_never_removed(tmp_path: Path, store: Counted) -> None:
    small, copy = cache(tmp_path), wanted(tmp_path, 0)
    copy.folder.mkdir(parents=True)
    copy.path.write_bytes(contents(0))
    (copy.folder / "notes.txt").write_bytes(contents(4))
    for number in (0, 1, 2, 3, 0):
        assert read(small, wanted(tmp_path, number), store) == contents(number)
    assert store.fetched == ["shard-1", "shard-2", "shard-3"]
    assert {"shard-0", "notes.txt"} <= stored(tmp_path)


def test_a_file_that_was_changed_is_named_and_stays(tmp_path: Path, store: Counted) -> None:
    small, each = cache(tmp_path), wanted(tmp_path, 0)
    read(small, each, store)
    each.path.write_bytes(contents(1))
    with pytest.raises(IntegrityError, match=f"{each.path}: was changed in the cache; remove it"):
        read(small, each, store)
    assert each.path.read_bytes() == contents(1)


def test_another_manifest_has_another_folder(tmp_path: Path, store: Counted) -> None:
    small = cache(tmp_path)
    read(small, wanted(tmp_path, 0, "a"), store)
    read(small, wanted(tmp_path, 0, "b"), store)
    read(small, wanted(tmp_path, 1, "b"), store)
    assert not wanted(tmp_path, 0, "a").path.exists()
    assert wanted(tmp_path, 0, "b").path.exists()


def test_too_small_a_cache_is_refused(tmp_path: Path, store: Counted) -> None:
    with pytest.raises(OptionError, match=r"--cache-size 500: smaller than shard-0 .1000."):
        read(cache(tmp_path, 0.5), wanted(tmp_path, 0), store)


def fetch_all(folder: str, rounds: int, shards: float = 6) -> None:
    """Read all objects in turn; prints how many were fetched."""
    place = Path(folder)
    store, small = Counted(place / "store"), cache(place, shards)
    for number in list(range(5)) * rounds:
        assert held(place, small) <= shards
        assert read(small, wanted(place, number), store) == contents(number)
    print(len(store.fetched))


def test_two_processes_fetch_each_object_once(tmp_path: Path, store: Counted) -> None:
    line = "fetch_all(sys.argv[1], 3)"
    processes = [script("tests.storage.test_cache", line, tmp_path) for _ in range(2)]
    counts = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], counts
    assert sum(int(output) for output, _ in counts) == 5


def test_two_processes_share_a_cache_that_is_too_small(tmp_path: Path, store: Counted) -> None:
    """Each waits for the other, and the limit holds for both together."""
    line = "fetch_all(sys.argv[1], 40, 2)"
    processes = [script("tests.storage.test_cache", line, tmp_path) for _ in range(2)]
    counts = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], counts
    assert len(stored(tmp_path)) <= 2


def test_downloads_of_killed_processes_make_room(tmp_path: Path, store: Counted) -> None:
    """Whatever is killed, its file counts no longer."""
    wanted(tmp_path, 0).folder.mkdir(parents=True)
    wanted(tmp_path, 0).lock.parent.mkdir()
    child = os.fork()
    if child == 0:
        cache(tmp_path)._reserve(wanted(tmp_path, 0))
        os._exit(0)
    os.waitpid(child, 0)
    assert any(name.startswith("tmp.") for name in stored(tmp_path))
    small = cache(tmp_path)
    for number in (1, 2):
        read(small, wanted(tmp_path, number), store)
    assert stored(tmp_path) == {"shard-1", "shard-2"}
