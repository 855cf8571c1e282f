"""The fuzzer: planted failures are recorded, a case can be repeated, and the seeds of every kind are read."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.cases import Case, build, prepare, seed_count
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.mutations import BYTES, SPECIAL
from tests.fuzz.watch import Limits

PLANTED = "tests.fuzz.planted"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fuzzer, Path]]:
    """Two files of every planted kind, read under small limits by two workers."""
    keep = tmp_path_factory.mktemp("kept")
    fuzzer = Fuzzer(PLANTED, limits=Limits(seconds=2, memory=30_000_000), keep=keep, jobs=2)
    try:
        fuzzer.run(only=[0, 99])
        yield fuzzer, keep
    finally:
        fuzzer.close()


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("say_nothing", "no message of one printable line"),
        ("leave_a_traceback", "KeyError at 'planted'"),
        ("panic", "BaseException at planted"),
        ("hang", "time"),
        ("work_long", "time"),
        ("take_memory", "memory"),
        ("take_ever_more", "memory"),
        ("crash", "crash -6"),
    ],
)
def test_what_breaks_is_seen_and_kept(planted, kind, cause):
    fuzzer, keep = planted
    tally = fuzzer.tallies[kind]
    assert {name: len(results) for name, results in tally.causes.items()} == {cause: 2}
    assert (keep / f"{kind}-0-99" / "failure.txt").read_text().startswith(Case(kind, 0, 99).command)
    assert list(keep.glob(f"{kind}-0-99/*/file.txt"))


def test_the_table_counts_what_came_of_the_files(planted):
    fuzzer, _ = planted
    table = fuzzer.as_dict()
    assert [table["accept"][name] for name in ("files", "accepted", "refused", "failed")] == [2, 2, 0, 0]
    assert table["accept"]["warnings"] == {"UserWarning: a planted warning": 2}
    assert [table["refuse"][name] for name in ("files", "accepted", "refused", "failed")] == [2, 0, 2, 0]
    assert 55e6 < table["take_memory"]["memory"] < 80e6
    assert 2 <= table["hang"]["longest"] < 30
    assert fuzzer.failed == 16
    assert "20 files of 10 kinds, 16 failed" in fuzzer.as_text()


def test_a_valid_file_that_is_refused_is_a_failure():
    fuzzer = Fuzzer(PLANTED, ["refuse"])
    fuzzer.valid["refuse"] = True
    fuzzer.run(files=3)
    fuzzer.close()
    assert [*fuzzer.tallies["refuse"].causes] == ["a valid file is refused"]
    assert fuzzer.tallies["refuse"].verdicts == {"failed": 2, "refused": 1}


def test_the_seed_decides_the_file(tmp_path):
    from tests.fuzz import planted

    kind = planted.KINDS[0]
    for corpus in ("first", "second"):
        build(PLANTED, [kind.name], tmp_path / corpus)

    def mutated(seed: int, number: int, corpus: str) -> tuple[bytes, str]:
        path, edits = prepare(Case(kind.name, seed, number), kind, tmp_path / corpus, tmp_path / "work")
        return path.read_bytes(), edits

    first = seed_count(kind.name, tmp_path / "first") + len(SPECIAL)
    numbers = range(first, first + 50)
    files = [mutated(3, number, "first") for number in numbers]
    assert files == [mutated(3, number, "second") for number in numbers]
    assert len({data for data, _ in files}) > 40
    assert files != [mutated(4, number, "first") for number in numbers]


def test_numbers_begin_with_whole_files_and_what_is_no_file(tmp_path):
    from tests.fuzz import planted

    kind = planted.KINDS[0]
    build(PLANTED, [kind.name], tmp_path / "corpus")
    count = seed_count(kind.name, tmp_path / "corpus")
    edits = []
    for number in range(count + len(SPECIAL)):
        path, edit = prepare(Case(kind.name, 0, number), kind, tmp_path / "corpus", tmp_path / "work")
        edits.append(edit)
        if edit == "sparse":
            assert path.stat().st_size == 10 * 2**30
    assert edits == ["whole"] * count + list(SPECIAL)


@pytest.mark.parametrize("mutator", dict.fromkeys(BYTES), ids=lambda mutator: mutator.__name__)
def test_bytes_of_any_length_can_be_mutated(mutator):
    for data in (b"", b"x", bytes(5000)):
        changed = [mutator(data, Random(seed), [b"other"]) for seed in range(40)]
        assert any(each != data for each in changed) or not data


@pytest.mark.slow
def test_the_command_that_a_failure_names_repeats_it(tmp_path):
    command = shlex.split(Case("speeds", 0, 0).command)
    run = [sys.executable, *command[1:], "--json", "--keep", str(tmp_path)]
    answer = subprocess.run(run, capture_output=True, text=True, check=True)
    assert '"accepted": 1' in answer.stdout


@pytest.mark.slow
def test_every_kind_reads_its_seeds_and_each_mutator_fits_some_of_them(tmp_path):
    from tests.fuzz.targets import KINDS

    build("tests.fuzz.targets", [kind.name for kind in KINDS], tmp_path / "corpus")
    for kind in KINDS:
        count = seed_count(kind.name, tmp_path / "corpus")
        work = tmp_path / "work"
        for number in range(count if kind.valid else 0):
            path, _ = prepare(Case(kind.name, 0, number), kind, tmp_path / "corpus", work)
            kind.read(path, Random(number))
        files = [prepare(Case(kind.name, 0, n), kind, tmp_path / "corpus", work)[0].read_bytes() for n in range(count)]
        for mutator in kind.mutators:
            assert any(_applies(mutator, data, files) for data in files), f"{kind.name}: {mutator.__name__}"


def _applies(mutator, data: bytes, others: list[bytes]) -> bool:
    for seed in range(20):
        try:
            if mutator(data, Random(seed), others) != data:
                return True
        except Exception:
            continue
    return False
