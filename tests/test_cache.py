"""The cache: stored values are reused, and damaged entries are computed again silently."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_pipeline import cache
from saliency_pipeline.cache import cached, discard
from saliency_pipeline.home import cache_folder
from saliency_pipeline.speeds import remembered_speeds
from saliency_pipeline.temporaries import temporary_name
from tests.odd_files import make_odd


class Making:
    """Joins texts, with a cache, and counts the computations."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *made_of: str, size: int = 1) -> str:
        def make() -> str:
            self.count += 1
            return "+".join(made_of) * size

        return cached("text", made_of, make, str.encode, bytes.decode)


@pytest.fixture
def making(empty_cache: Path) -> Making:
    assert not empty_cache.exists()
    return Making()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("networks/*"))


def test_what_is_made_of_the_same_is_made_once(making: Making, empty_cache: Path) -> None:
    assert making("a", "b") == making("a", "b") == "a+b"
    assert making.count == 1
    assert making("ab") == "ab"
    assert making("a", "c") == "a+c"
    assert making.count == len(entries(empty_cache)) == 3


def test_what_is_made_of_nothing_known_is_not_cached(making: Making, empty_cache: Path) -> None:
    assert making() == making() == ""
    assert making.count == 2
    assert not entries(empty_cache)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, -1])
def test_an_entry_cut_short_is_made_again(length: int, making: Making, empty_cache: Path) -> None:
    making("a", size=100)
    (entry,) = entries(empty_cache)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:length])
    assert making("a", size=100) == "a" * 100
    assert making.count == 2
    assert entry.read_bytes() == whole


def test_a_changed_byte_is_noticed(making: Making, empty_cache: Path) -> None:
    making("a", size=100)
    (entry,) = entries(empty_cache)
    for position in (0, 40, 131):
        data = bytearray(entry.read_bytes())
        data[position] ^= 1
        entry.write_bytes(data)
        assert making("a", size=100) == "a" * 100
    assert making.count == 4


def test_what_cannot_be_unpacked_is_made_again(empty_cache: Path) -> None:
    def refuse(data: bytes) -> str:
        raise ValueError(data.decode())

    for _ in range(2):
        assert cached("text", ["a"], lambda: "value", str.encode, refuse) == "value"
    assert len(entries(empty_cache)) == 1


def test_what_cannot_be_packed_is_used_all_the_same(empty_cache: Path) -> None:
    def refuse(value: str) -> bytes:
        raise TypeError(value)

    assert cached("text", ["a"], lambda: "value", refuse, bytes.decode) == "value"
    assert not entries(empty_cache)


def test_what_making_raises_is_raised(empty_cache: Path) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached("text", ["a"], fail, str.encode, bytes.decode)
    assert not empty_cache.exists()


def test_what_was_unused_for_longest_makes_room(
    making: Making, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_TOTAL_BYTES", 500)
    for number, name in enumerate("abcd"):
        making(name, size=100)
        for entry in entries(empty_cache):  # each was used when it was made, a second apart
            if time.time() - entry.stat().st_mtime < 100:
                os.utime(entry, (number, number))
    assert len(entries(empty_cache)) == 3
    making("b", size=100)  # used again
    assert making.count == 4
    making("e", size=200)
    count = making.count
    making("b", size=100)
    assert making.count == count
    making("c", size=100)
    assert making.count == count + 1
    assert sum(entry.stat().st_size for entry in entries(empty_cache)) <= 500


def test_what_is_larger_than_everything_else_may_be_is_not_cached(
    making: Making, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_TOTAL_BYTES", 500)
    making("a", size=100)
    assert making("b", size=501) == "b" * 501
    assert len(entries(empty_cache)) == 1


def test_leftovers_of_killed_processes_are_removed(making: Making, empty_cache: Path) -> None:
    making("a")
    (entry,) = entries(empty_cache)
    left = temporary_name(entry)
    left.touch()
    making("b")
    assert not left.exists()


def test_an_entry_can_be_discarded(making: Making) -> None:
    making("a")
    discard("text", ("a",))
    discard("text", ("a",))
    making("a")
    assert making.count == 2


def test_a_stray_folder_counts_for_nothing(making: Making, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making("a", size=300)
    (empty_cache / "networks" / "stray").mkdir()
    os.utime(empty_cache / "networks" / "stray", (0, 0))
    monkeypatch.setattr(cache, "MAX_TOTAL_BYTES", 500)
    making("b", size=400)
    (entry,) = (path for path in entries(empty_cache) if path.is_file())
    assert entry.stat().st_size > 400
    making("b", size=400)
    assert making.count == 2


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    making = Making()
    assert making("a") == making("a") == "a"
    assert making.count == 2


def raising(_name: str) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("answer", [raising, lambda name: Path("~/.cache") / name])
def test_without_a_home_nothing_is_left_where_the_command_runs(
    answer: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", answer)
    monkeypatch.chdir(tmp_path)
    making = Making()
    assert making("a") == making("a") == "a"
    assert making.count == 2
    assert not list(tmp_path.iterdir())
    assert cache_folder().is_absolute()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse", "empty"])
def test_what_is_no_entry_is_made_again(making: Making, empty_cache: Path, kind: str) -> None:
    making("a")
    (entry,) = entries(empty_cache)
    make_odd(entry, kind)
    assert making("a") == "a"
    assert making.count == 2


SPEEDS = [
    "[" * 100_000,
    "[]",
    '{"key": 1}',
    '{"key": {"a": NaN}}',
    '{"key": {"a": 0}}',
    '{"key": {"a": 1' + "0" * 400 + "}}",
]


@pytest.mark.parametrize("text", SPEEDS)
def test_speeds_that_cannot_be_are_measured_again(empty_cache: Path, text: str) -> None:
    empty_cache.mkdir(parents=True)
    (empty_cache / "speeds.json").write_text(text)
    for _ in range(2):
        assert remembered_speeds("key", ["a"], lambda: [2.0]) == {"a": 2.0}
    (empty_cache / "speeds.json").unlink()
    os.mkfifo(empty_cache / "speeds.json")
    assert remembered_speeds("key", ["a"], lambda: [2.0]) == {"a": 2.0}


def test_the_code_of_subpackages_is_part_of_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Path] = []
    read_bytes = Path.read_bytes

    def recorded(path: Path) -> bytes:
        files.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", recorded)
    assert cache.environment.__wrapped__() == cache.environment()
    names = {path.relative_to(Path(cache.__file__).parent).as_posix() for path in files}
    assert {"models/source/source.py", "models/trained/fusion.py", "saliency/methods/cam.py"} <= names
