"""Output folders in which somebody planted links, and file systems that refuse a service."""

import errno
import os
from pathlib import Path

import pytest

from saliency_pipeline import locks
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.plan import PLAN
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.subsets.prepare import prepare
from saliency_pipeline.subsets.selection import Grouping, Selection
from saliency_pipeline.temporaries import exclusive, temporary_name
from tests.generation.examples import flat, run


class Notes(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("images"), 2)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("old")
    return folder


@pytest.mark.parametrize("name", ["receipts", ".lock", "receipts/part-1-of-2"])
def test_a_planted_link_is_refused(images: Path, tmp_path: Path, outside: Path, name: str) -> None:
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "precious" if name == ".lock" else outside)
    with pytest.raises(SalpipeError, match=rf"{name}: a symbolic link inside the output folder is not followed"):
        run(images, tmp_path / "out", part=(1, 2), shard_size=1)
    assert os.listdir(outside) == ["precious"]
    assert (outside / "precious").read_text() == "old"


@pytest.mark.parametrize("name", ["shard-00000.h5", "manifest.json", "rejects.jsonl", PLAN])
@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_planted_link_is_replaced_where_a_file_is_written(
    images: Path, tmp_path: Path, outside: Path, name: str, target: str
) -> None:
    link = tmp_path / "out" / name
    link.parent.mkdir()
    link.symlink_to(outside / target)
    if (name, target) == (PLAN, "precious"):
        (tmp_path / "out" / "shard-00000.h5").touch()
        with pytest.raises(SalpipeError, match="not a plan"):
            run(images, tmp_path / "out")
    else:
        assert run(images, tmp_path / "out").complete
        assert not link.is_symlink()
        assert not verify(tmp_path / "out").problems
    assert os.listdir(outside) == ["precious"]
    assert (outside / "precious").read_text() == "old"


def test_fingerprints_are_not_written_through_a_link(images: Path, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fingerprints").symlink_to(outside)
    with pytest.raises(SalpipeError, match="fingerprints: a symbolic link inside"):
        prepare(
            images,
            selection=Selection(),
            grouping=Grouping(group_duplicates=True),
            cache=tmp_path / "out" / "fingerprints",
        )
    assert os.listdir(outside) == ["precious"]


def test_the_output_folder_itself_may_be_a_link(images: Path, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "out").symlink_to(outside)
    assert run(images, tmp_path / "out").complete
    assert (outside / "manifest.json").is_file()


def test_a_file_system_that_refuses_every_service_takes_shards(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(524, "Unknown error 524")

    for module, name in ((locks.fcntl, "flock"), (os, "fsync"), (os, "link")):
        monkeypatch.setattr(module, name, refuse)
    notes = Notes()
    for number in (1, 2):
        run(images, tmp_path / "out", part=(number, 2), shard_size=1, progress=notes)
    assert not verify(tmp_path / "out").problems
    assert sum("no locks" in line for line in notes.lines) == 2


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_broken_or_full_disk_still_stops(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SalpipeError, match=r"disk full while writing|cannot write .*Input/output error"):
        run(images, tmp_path / "out")


def test_a_slice_leaves_the_shards_that_others_are_writing(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    other = temporary_name(tmp_path / "out" / "shard-00001.h5")
    with open(other, "xb", opener=exclusive):
        run(images, tmp_path / "out", part=(1, 2), shard_size=1)
        assert other.exists()
    run(images, tmp_path / "out", part=(2, 2), shard_size=1)
    assert not other.exists()
