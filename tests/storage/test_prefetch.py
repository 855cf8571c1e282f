"""Shards are fetched ahead in the order of the steps, as far as the cache holds them."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from saliency_pipeline.storage import settings
from saliency_pipeline.storage.cache import CachedObject, ShardCache
from saliency_pipeline.storage.mirror import Mirror
from saliency_pipeline.storage.prefetch import Prefetch
from tests.storage.local import LocalStore

SIZE, SHARDS = 1000, 6


class Watched(Mirror):
    """A mirror of a folder that records the order in which objects are fetched."""

    fetched: list[str]

    def open_object(self, wanted: CachedObject) -> int:
        self.fetched.append(wanted.name)
        return ShardCache().open(wanted, lambda: LocalStore(Path(self.url)))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Six shards of `SIZE` bytes; one is fetched at a time."""
    store = tmp_path / "store"
    store.mkdir()
    for number in range(SHARDS):
        (store / f"shard-{number}").write_bytes(bytes([number]) * SIZE)
    monkeypatch.setenv(settings.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr("saliency_pipeline.storage.prefetch.THREADS", 1)
    watched = Watched(tmp_path / "cache" / ("a" * 64) / "shards", str(store))
    object.__setattr__(watched, "fetched", [])
    return watched


def steps(mirror: Mirror, *numbers: Sequence[int]) -> list[list[CachedObject]]:
    return [
        [mirror.object(f"shard-{n}", SIZE, hashlib.sha256(bytes([n]) * SIZE).hexdigest()) for n in step]
        for step in numbers
    ]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def names(*numbers: int) -> list[str]:
    return [f"shard-{number}" for number in numbers]


def test_all_is_fetched_in_order_where_there_is_room(mirror: Watched, monkeypatch) -> None:
    monkeypatch.setenv(settings.SIZE, "1M")
    prefetch = Prefetch(mirror, steps(mirror, [3], [3, 1], [0, 2], [1], [4]))
    until(lambda: len(mirror.fetched) == 5)
    prefetch.close()
    assert mirror.fetched == names(3, 1, 0, 2, 4)


def test_no_further_than_the_cache_holds(mirror: Watched, monkeypatch) -> None:
    """Room for three: two of them for the steps ahead."""
    monkeypatch.setenv(settings.SIZE, str(3 * SIZE))
    prefetch = Prefetch(mirror, steps(mirror, [0], [0, 1], [1], [2], [2, 3], [4]))
    until(lambda: mirror.fetched == names(0, 1))
    prefetch.reached(2)
    until(lambda: mirror.fetched == names(0, 1, 2))
    time.sleep(0.05)
    assert mirror.fetched == names(0, 1, 2)
    prefetch.reached(3)
    until(lambda: mirror.fetched == names(0, 1, 2, 3))
    prefetch.reached(5)
    until(lambda: mirror.fetched == names(0, 1, 2, 3, 4))
    prefetch.close()
    held = {path.name for path in mirror.folder.iterdir() if path.is_file()}
    assert len(held) <= 3


def test_what_waits_for_its_step_stays(mirror: Watched, monkeypatch) -> None:
    """Shards of steps that are over are removed before those that were fetched ahead and not read yet."""
    monkeypatch.setenv(settings.SIZE, str(4 * SIZE))
    planned = steps(mirror, *([n] for n in range(SHARDS)))
    prefetch = Prefetch(mirror, planned)
    until(lambda: mirror.fetched == names(0, 1, 2))
    for number in range(2):
        prefetch.reached(number)
        os.close(ShardCache().open(planned[number][0], lambda: LocalStore(Path(mirror.url))))
    until(lambda: mirror.fetched == names(0, 1, 2, 3))
    prefetch.reached(2)
    until(lambda: planned[4][0].path.exists())
    prefetch.close()
    held = {path.name for path in mirror.folder.iterdir() if path.is_file()}
    assert held == set(names(1, 2, 3, 4))


def test_closing_ends_it_at_once(mirror: Watched, monkeypatch) -> None:
    monkeypatch.setenv(settings.SIZE, str(3 * SIZE))
    prefetch = Prefetch(mirror, steps(mirror, *([n] for n in range(SHARDS))))
    until(lambda: mirror.fetched == names(0, 1))
    prefetch.close()
    assert mirror.fetched == names(0, 1)


def test_an_error_is_left_to_the_reader(mirror: Watched, monkeypatch) -> None:
    monkeypatch.setenv(settings.SIZE, "1M")
    os.unlink(Path(mirror.url) / "shard-1")
    prefetch = Prefetch(mirror, steps(mirror, [0], [1], [2]))
    until(lambda: mirror.fetched == names(0, 1, 2))
    prefetch.close()


def test_what_a_step_alone_exceeds_is_not_fetched_ahead(mirror: Watched, monkeypatch) -> None:
    monkeypatch.setenv(settings.SIZE, str(2 * SIZE))
    prefetch = Prefetch(mirror, steps(mirror, [0, 1, 2], [3]))
    prefetch.reached(1)
    until(lambda: mirror.fetched == names(3))
    prefetch.close()
