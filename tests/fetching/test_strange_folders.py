"""Output folders with links and invalid logs."""

import os
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.temporaries import temporary_name
from tests.fetching.test_fetch import files, run, serve, write_list
from tests.fetching.web import Web


@pytest.fixture
def web():
    with Web() as server:
        yield server


@pytest.fixture
def listed(tmp_path, web):
    return write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("old\n")
    return tmp_path / "outside"


@pytest.mark.parametrize("name", ["fetch.jsonl", ".lock", "a b"])
def test_a_planted_link_is_refused(tmp_path, listed, outside, name):
    target = outside if name == "a b" else outside / "precious"
    (tmp_path / "out" / name).symlink_to(target)
    with pytest.raises(SalpipeError, match=f"{name}: a symbolic link inside the output folder is not followed"):
        run(listed)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "old\n"}


def test_a_log_of_two_names_is_continued_in_one(tmp_path, listed, outside):
    os.link(outside / "precious", tmp_path / "out" / "fetch.jsonl")
    assert run(listed).outcomes == {"ok": 3}
    assert (outside / "precious").read_text() == "old\n"
    assert len((tmp_path / "out" / "fetch.jsonl").read_text().splitlines()) == 4


def test_a_copy_of_the_list_is_not_written_through_a_link(tmp_path, listed, outside):
    (tmp_path / "out" / listed.name).symlink_to(outside / "precious")
    run(listed)
    assert (outside / "precious").read_text() == "old\n"


def test_nothing_is_removed_behind_a_link(tmp_path, listed, outside, web):
    """A person's folder by another spelling is a link that leads out; files are replaced here, not removed there."""
    (outside / "1.jpg").write_bytes(b"damaged")
    left = temporary_name(outside / "1.jpg")
    left.touch()
    (tmp_path / "out" / "a_b").symlink_to(outside)
    run(listed)
    assert sorted(path.name for path in outside.iterdir()) == sorted(["1.jpg", "precious", left.name])
    assert "a b/1.jpg" in files(tmp_path / "out")


@pytest.mark.parametrize("kind", ["pipe", "sparse", "long line"])
def test_files_that_are_no_log_are_refused_or_skipped(tmp_path, listed, kind):
    log: Path = tmp_path / "out" / "fetch.jsonl"
    log.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(log)
    else:
        with open(log, "wb") as file:
            file.truncate(2**36 if kind == "sparse" else 2**22)
    if kind == "long line":
        assert run(listed).outcomes == {"ok": 3}
        assert run(listed).downloaded == 0
        return
    with pytest.raises(SalpipeError, match=r"fetch\.jsonl: (not a regular file|larger than .* bytes); remove it"):
        run(listed)
