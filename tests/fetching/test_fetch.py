"""Fetching a list: rows, duplicates, limits per host and person."""

import dataclasses
import hashlib
import os
import resource
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.pubfig import LAYOUTS
from saliency_pipeline.errors import FolderInUseError, SalpipeError
from saliency_pipeline.fetching.fetch import fetch
from saliency_pipeline.fetching.fetch_log import FetchReport
from saliency_pipeline.folders import FolderLock
from saliency_pipeline.progress import Progress
from tests.broken_images import encode, photo
from tests.fetching import web as replies
from tests.fetching.test_download import LIMITS, Names, closed_port, log_of
from tests.fetching.web import Web

IMAGES = [encode(photo(seed=seed), "JPEG") for seed in range(12)]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def write_list(folder: Path, *rows: tuple[str, int, str, str | None]) -> Path:
    """Rows of (person, number, URL, md5)."""
    lines = ["# PubFig Dataset v1.2 - dev_urls.txt", "#\tperson\timagenum\turl\trect\tmd5sum"]
    for person, number, url, digest in rows:
        lines.append("\t".join([person, str(number), url, "4,4,20,24", *([digest] if digest else [])]))
    (folder / "dev_urls.txt").write_text("\n".join(lines))
    return folder / "dev_urls.txt"


def serve(web: Web, count: int, delay: float = 0) -> list[tuple[str, str]]:
    """A number of images, /0 and so on: URL and md5."""
    return [(web.page(f"/{i}", replies.image(IMAGES[i], delay=delay)), md5(IMAGES[i])) for i in range(count)]


def run(listed: Path, output: str | Path | None = None, **options: object) -> FetchReport:
    return fetch(listed, output or listed.parent / "out", **{"limits": LIMITS, "resolver": Names(), **options})


def files(folder: Path) -> dict[str, bytes]:
    """Everything below the output folder but the lock and the log."""
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in contents.items() if name not in (".lock", "fetch.jsonl")}


def outcomes(folder: Path) -> dict[tuple[str, int], str]:
    return {(each.person, each.imagenum): each.outcome for each in log_of(folder)}


@pytest.fixture
def web():
    with Web() as server:
        yield server


def test_what_is_fetched_reads_as_a_data_set(tmp_path, web):
    one, two, three = serve(web, 3)
    png = encode(photo(), "PNG")
    lying = web.page("/lying.jpg", replies.image(png))
    listed = write_list(
        tmp_path, ("Ada", 4, *one), ("Ada", 9, lying, md5(png)), ("Van der Berg Jr", 1, *two), ("Ada", 10, *three)
    )
    report = run(listed)
    out = tmp_path / "out"
    expected = {"Ada/4.jpg": 0, "Ada/10.jpg": 2, "Van der Berg Jr/1.jpg": 1}
    assert files(out) == {name: IMAGES[image] for name, image in expected.items()} | {
        "Ada/9.png": png,
        "dev_urls.txt": listed.read_bytes(),
    }
    assert (report.listed, report.images, report.downloaded, report.people) == (4, 4, 4, 2)
    assert report.bytes == sum(map(len, [*IMAGES[:3], png]))
    assert report.outcomes == {"ok": 4}
    assert report.few == {"Ada": 3, "Van der Berg Jr": 1}
    assert "4 of 4 images present, 4 downloaded now" in report.as_text()

    (layout,) = [layout for layout in LAYOUTS if layout.recognize(out)]
    catalogue = layout.read(out, ReadOptions())
    assert [record.key for record in catalogue.records] == [
        "Ada/4.jpg",
        "Ada/9.png",
        "Ada/10.jpg",
        "Van der Berg Jr/1.jpg",
    ]
    assert {record.box for record in catalogue.records} == {(4, 4, 20, 24)}
    assert catalogue.notes == ()


def test_a_list_without_md5_is_fetched_as_well(tmp_path, web):
    (url, _), _ = serve(web, 2)
    page = web.page("/page", replies.image(b"<html>............."))
    listed = write_list(tmp_path, ("a b", 1, url, None), ("a b", 2, page, None), ("c d", 1, url, None))
    run(listed)
    assert outcomes(tmp_path / "out") == {("a b", 1): "ok", ("a b", 2): "not-an-image", ("c d", 1): "copied"}
    assert web.requests["/0"] == 1
    assert run(listed).downloaded == 0


def test_hostile_names_stay_in_the_folder(tmp_path, web):
    (good,) = serve(web, 1)
    inner = tmp_path / "inner"
    inner.mkdir()
    names = ("../evil", "..", "/tmp/evil", "a/../../evil", ".ssh", "a\\b", "\x1b[2J", "x" * 300, " ")
    listed = write_list(inner, *((name, 1, *good) for name in names), ("Ada_L", 1, *good))
    report = run(listed)
    assert report.listed == 1
    assert len(report.notes) == len(names)
    assert set(files(tmp_path)) == {"inner/dev_urls.txt", "inner/out/dev_urls.txt", "inner/out/Ada L/1.jpg"} | {
        "inner/out/.lock",
        "inner/out/fetch.jsonl",
    }


# once


def test_one_url_in_several_rows_is_asked_once(tmp_path, web):
    slow = web.page("/slow", replies.image(IMAGES[0], delay=0.1))
    rows = [(person, number, slow, md5(IMAGES[0])) for person in ("a b", "c d") for number in (1, 2)]
    report = run(write_list(tmp_path, *rows), per_host=8)
    assert web.requests == {"/slow": 1}
    assert report.outcomes == {"copied": 3, "ok": 1}
    assert len({path.stat().st_ino for path in (tmp_path / "out").glob("*/*.jpg")}) == 1


def test_one_content_at_several_urls_is_downloaded_once(tmp_path, web):
    urls = [web.page(f"/{place}", replies.image(IMAGES[0], delay=0.05)) for place in "abc"]
    run(write_list(tmp_path, *(("a b", n, url, md5(IMAGES[0])) for n, url in enumerate(urls))), per_host=8)
    assert web.requests.total() == 1
    assert len(files(tmp_path / "out")) == 4


def test_copies_where_there_are_no_links(tmp_path, web, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    ((url, digest),) = serve(web, 1)
    run(write_list(tmp_path, ("a b", 1, url, digest), ("c d", 1, url, digest)))
    assert len({path.stat().st_ino for path in (tmp_path / "out").glob("*/*.jpg")}) == 2
    assert len(files(tmp_path / "out")) == 3


def test_a_dead_row_gets_its_image_from_another_row(tmp_path, web):
    dead = web.page("/dead", replies.status(404))
    ((url, digest),) = serve(web, 1)
    listed = write_list(tmp_path, ("a b", 1, dead, digest), ("c d", 1, url, digest))
    assert run(listed).outcomes == {"copied": 1, "ok": 1}
    assert [(each.person, each.outcome) for each in log_of(tmp_path / "out")] == [
        ("a b", "not-found"),
        ("c d", "ok"),
        ("a b", "copied"),
    ]


def test_one_url_of_two_md5_satisfies_one_of_them(tmp_path, web):
    ((url, digest), other) = serve(web, 2)
    run(write_list(tmp_path, ("a b", 1, url, other[1]), ("a b", 2, url, digest)))
    assert outcomes(tmp_path / "out") == {("a b", 1): "md5-mismatch", ("a b", 2): "ok"}
    assert web.requests == {"/0": 1}


# politely


def test_no_host_is_asked_for_more_at_a_time_than_allowed(tmp_path, web):
    rows = [
        (f"p {i}", i, url.replace("127.0.0.1", f"{'ab'[i % 2]}.example"), m)
        for i, (url, m) in enumerate(serve(web, 12, 0.03))
    ]
    names = Names(a_example="127.0.0.1", b_example="127.0.0.1")
    assert run(write_list(tmp_path, *rows), per_host=2, resolver=names).images == 12
    assert web.most == {"a.example": 2, "b.example": 2}


def test_a_slow_host_delays_no_other(tmp_path, web):
    stalls = [web.page(f"/slow{i}", replies.stalled()).replace("127.0.0.1", "slow.example") for i in range(3)]
    rows = [("slow one", i, url, md5(b"")) for i, url in enumerate(stalls)]
    rows += [("fast one", i, url, digest) for i, (url, digest) in enumerate(serve(web, 8))]
    limits = dataclasses.replace(LIMITS, retries=0)
    run(write_list(tmp_path, *rows), jobs=2, per_host=1, limits=limits, resolver=Names(slow_example="127.0.0.1"))
    order = [outcome.person for outcome in log_of(tmp_path / "out")]
    assert order == ["fast one"] * 8 + ["slow one"] * 3


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "nowhere.example"])
def test_a_host_that_is_not_there_is_given_up(tmp_path, host):
    there = host.format(port=closed_port())
    report = run(write_list(tmp_path, *(("a b", i, f"http://{there}/{i}", md5(b"")) for i in range(9))), per_host=1)
    tried = 1 if host == "nowhere.example" else 2
    assert report.outcomes == {"connection-error": tried, "host-unreachable": 9 - tried}
    log = log_of(tmp_path / "out")
    assert {outcome.attempts for outcome in log if outcome.outcome == "host-unreachable"} == {0}


# people and numbers


def test_rows_are_tried_until_a_person_has_enough(tmp_path, web):
    dead = web.page("/dead", replies.status(404))
    good = serve(web, 6)
    rows = [("a b", i, *each) for i, each in enumerate([(dead, md5(b"1")), good[0], (dead, md5(b"2")), *good[1:]])]
    listed = write_list(tmp_path, *rows, ("c d", 1, *good[0]), ("e f", 1, dead, md5(b"3")))
    report = run(listed, limit_per_person=2)
    assert sorted(files(tmp_path / "out")) == ["a b/1.jpg", "a b/3.jpg", "c d/1.jpg", "dev_urls.txt"]
    assert report.outcomes == {"not-tried": 4, "not-found": 3, "ok": 2, "copied": 1}
    assert (report.few_below, report.few) == (2, {"c d": 1, "e f": 0})
    assert web.requests == {"/dead": 1, "/0": 1, "/1": 1}
    # the same again changes nothing, a higher limit continues where it was
    assert run(listed, limit_per_person=2).images == 3
    assert run(listed, limit_per_person=4).outcomes == {"ok": 4, "not-found": 3, "not-tried": 2, "copied": 1}
    assert web.requests == {"/dead": 1, "/0": 1, "/1": 1, "/2": 1, "/3": 1}


def test_a_long_row_of_failures_needs_no_recursion(tmp_path, web):
    dead = web.page("/dead", replies.status(404))
    rows = [("a b", number, dead, f"{number:032x}") for number in range(3000)]
    assert run(write_list(tmp_path, *rows), limit_per_person=1).outcomes == {"not-found": 3000}
    assert web.requests == {"/dead": 1}


def test_only_the_people_who_are_named(tmp_path, web):
    one, two = serve(web, 2)
    listed = write_list(tmp_path, ("Ada Lovelace", 1, *one), ("Alan Turing", 1, *two))
    assert run(listed, people=["Alan_Turing"]).listed == 1
    assert web.requests == {"/1": 1}
    with pytest.raises(
        SalpipeError, match=r"dev_urls\.txt: no person called 'Ada Lovelase' in it; did you mean 'Ada Lo"
    ):
        run(listed, people=["Ada Lovelase"])


# what stands in the way


def test_a_folder_in_use_is_left_alone(tmp_path, web):
    listed = write_list(tmp_path, ("a b", 1, *serve(web, 1)[0]))
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"), pytest.raises(FolderInUseError, match="another run is writing there"):
        run(listed)


def test_a_folder_that_cannot_be_written_ends_the_run_in_one_line(tmp_path, web):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 9))))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a b").write_text("a file where the folder should be")
    with pytest.raises(SalpipeError, match=r"cannot write .*a b/\d: File exists; put that right and run the same"):
        run(listed)
    assert log_of(tmp_path / "out") == []


def test_a_missing_aiohttp_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        SalpipeError, match=r"reading from web servers needs aiohttp; pip install 'saliency-pipeline\[fetch\]'"
    ):
        run(write_list(tmp_path, ("a b", 1, "http://host/", md5(b""))))


def test_few_open_files_mean_few_downloads_at_a_time(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Progress):
        lines: tuple[str, ...] = ()

        def note(self, text: str) -> None:
            self.lines += (text,)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, 4096))
    listed = write_list(tmp_path, *(("P", i, url, digest) for i, (url, digest) in enumerate(serve(web, 4))))
    notes = Notes()
    assert run(listed, jobs=32, progress=notes).downloaded == 4
    assert notes.lines == ("--jobs 32: only 2; more need a higher limit on open files (ulimit -n)",)
    assert 1 <= max(web.most.values()) <= 2
