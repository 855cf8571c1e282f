"""Fetching again: after the end, after a kill or interrupt, and after changes of files."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.fetching.fetch_log import PASSING, Outcome
from saliency_pipeline.remote.session import Limits
from tests.broken_images import encode, photo
from tests.fetching import web as replies
from tests.fetching.test_download import LIMITS, closed_port, log_of
from tests.fetching.test_fetch import IMAGES, files, md5, outcomes, run, serve, write_list
from tests.fetching.web import Web

COMMAND = """
from saliency_pipeline.cli import main
main.main()
"""


@pytest.fixture
def web():
    with Web() as server:
        yield server


def test_nothing_is_downloaded_twice(tmp_path, web):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))
    run(listed)
    before, log = files(tmp_path / "out"), (tmp_path / "out" / "fetch.jsonl").read_bytes()
    report = run(listed)
    assert (report.images, report.downloaded, report.outcomes) == (3, 0, {"ok": 3})
    assert files(tmp_path / "out") == before
    assert (tmp_path / "out" / "fetch.jsonl").read_bytes() == log
    assert web.requests == {"/0": 1, "/1": 1, "/2": 1}


def test_what_may_pass_is_tried_again_and_what_failed_for_good_is_not(tmp_path, web):
    (good,) = serve(web, 1)
    answers = {"dead": replies.status(404), "broken": replies.status(500), "shut": replies.status(403)}
    rows = [("a b", i, web.page(f"/{name}", answers[name]), good[1]) for i, name in enumerate(answers)]
    rows.append(("a b", 9, f"http://127.0.0.1:{closed_port()}/", md5(b"")))
    listed = write_list(tmp_path, *rows)
    run(listed)
    assert outcomes(tmp_path / "out") == {
        ("a b", 0): "not-found",
        ("a b", 1): "http-error",
        ("a b", 2): "http-error",
        ("a b", 9): "connection-error",
    }
    for name in answers:
        web.page(f"/{name}", replies.image(IMAGES[0]))
    web.requests.clear()
    # the one that may pass brings what the others wanted as well
    assert run(listed).outcomes == {"copied": 2, "connection-error": 1, "ok": 1}
    assert web.requests == {"/broken": 1}


def test_what_failed_for_good_is_tried_when_that_is_asked_for(tmp_path, web):
    listed = write_list(tmp_path, ("a b", 1, web.page("/", replies.status(404)), md5(IMAGES[0])))
    run(listed)
    web.page("/", replies.image(IMAGES[0]))
    assert run(listed).outcomes == {"not-found": 1}
    assert run(listed, retry_failed=True).outcomes == {"ok": 1}
    assert run(listed, retry_failed=True).outcomes == {"ok": 1}
    assert web.requests == {"/": 2}


def test_every_outcome_is_either_had_or_passing_or_final():
    def outcome(name: str, status: int | None = None) -> Outcome:
        return Outcome("a b", 1, "http://host/", name, status=status, bytes=9)

    def final(name: str, status: int | None = None, **limits: int) -> bool:
        return outcome(name, status).final(Limits(**{"max_bytes": 8, **limits}))

    assert outcome("ok").had
    assert outcome("copied").had
    for name in ("ok", "copied", *PASSING):
        assert not final(name)
    for name in ("not-found", "gone", "refused-address", "redirect-loop", "too-many-redirects", "wrong-type"):
        assert final(name)
    for name in ("too-large", "md5-mismatch", "not-an-image", "bad-url"):
        assert final(name)
    passing = [status for status in (None, 400, 403, 408, 425, 429, 500, 503) if not final("http-error", status)]
    assert passing == [None, 408, 425, 429, 500, 503]
    # what a limit decided is tried again once the limit is wide enough
    assert not final("refused-address", allow_private=True)
    assert not final("too-large", max_bytes=9)
    assert not Outcome("a b", 1, "http://host/", "too-large").final(Limits())


def test_what_a_limit_forbade_is_tried_again_when_it_allows_it(tmp_path, web):
    announced, chunked = web.page("/length", replies.image(IMAGES[0])), web.page("/none", replies.cut_chunks(IMAGES[1]))
    listed = write_list(tmp_path, ("a b", 1, announced, md5(IMAGES[0])), ("a b", 2, chunked, md5(IMAGES[1])))
    for _ in range(2):
        report = run(listed, limits=dataclasses.replace(LIMITS, allow_private=False))
        assert report.outcomes == {"refused-address": 2}
        assert report.as_text().endswith("\nrefused-address 2 (--allow-private would connect to them)")
    assert not web.requests
    for _ in range(2):
        assert run(listed, limits=dataclasses.replace(LIMITS, max_bytes=99)).outcomes == {"too-large": 2}
    assert web.requests == {"/length": 1, "/none": 1}
    assert run(listed, limits=dataclasses.replace(LIMITS, retries=0)).outcomes == {"ok": 1, "truncated": 1}


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def resave(path: Path) -> None:
    """The same image under the same number in another file, as a user's own copy might be."""
    path.unlink()
    path.with_suffix(".png").write_bytes(encode(photo(), "PNG"))


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("change", [delete, cut, resave, dangle])
def test_a_changed_file_is_downloaded_again_and_no_other(tmp_path, web, change: Callable[[Path], None]):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))
    run(listed)
    before = files(tmp_path / "out")
    change(tmp_path / "out" / "a b" / "1.jpg")
    assert run(listed).downloaded == 1
    assert files(tmp_path / "out") == before
    assert web.requests == {"/0": 1, "/1": 2, "/2": 1}


@pytest.mark.parametrize("output", ["out", "link", "far/../out"])
@pytest.mark.parametrize("linked_person", [False, True])
def test_what_replaces_a_file_is_not_removed_with_it(tmp_path, web, monkeypatch, output: str, linked_person: bool):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "far").symlink_to("x/y")
    (tmp_path / "link").symlink_to("out")
    run(listed)
    before = files(tmp_path / "out")
    cut(tmp_path / "out" / "a b" / "1.jpg")
    if linked_person:  # by a name that is the same person's and sorts before the folder's own
        (tmp_path / "out" / "a  b").symlink_to("a b")
    assert run(listed, output=output).downloaded == 1
    assert before.items() <= files(tmp_path / "out").items()
    assert run(listed, output=output).downloaded == 0


def test_a_link_in_the_folder_is_not_copied_as_a_link(tmp_path, web):
    ((url, digest),) = serve(web, 1)
    folder = tmp_path / "out" / "a b"
    folder.mkdir(parents=True)
    (folder / "original").write_bytes(IMAGES[0])
    (folder / "1.jpg").symlink_to("original")
    assert run(write_list(tmp_path, ("a b", 1, url, digest), ("c d", 1, url, digest))).outcomes == {
        "ok": 1,
        "copied": 1,
    }
    assert (tmp_path / "out" / "c d" / "1.jpg").read_bytes() == IMAGES[0]
    assert not web.requests


def test_what_is_there_without_a_log_is_logged_not_downloaded(tmp_path, web):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))
    for name, data in {"a_b/0.jpeg": IMAGES[0], "a_b/1.jpg": IMAGES[1][:-1]}.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    run(listed)
    assert web.requests == {"/1": 1, "/2": 1}
    assert log_of(tmp_path / "out")[0].detail == "was in the folder"
    assert sorted(files(tmp_path / "out")) == ["a b/1.jpg", "a b/2.jpg", "a_b/0.jpeg", "dev_urls.txt"]


def test_another_data_set_is_not_fetched_into(tmp_path, web):
    listed = write_list(tmp_path, ("a b", 1, *serve(web, 1)[0]))
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (tmp_path / "out" / name).parent.mkdir(parents=True)
        (tmp_path / "out" / name).write_bytes(IMAGES[0])
    with pytest.raises(SalpipeError, match="a folder of images; choose an output folder outside it"):
        run(listed)
    assert not web.requests


def test_a_torn_or_strange_log_is_survived(tmp_path, web):
    listed = write_list(tmp_path, *(("a b", i, *each) for i, each in enumerate(serve(web, 3))))
    run(listed)
    log = tmp_path / "out" / "fetch.jsonl"
    whole = log.read_bytes()
    torn = json.loads(whole.splitlines()[-1])["imagenum"]  # downloads end in any order
    log.write_bytes(b'[1]\n{"person": 3}\n' + b"[" * 100_000 + b"\n\xff\n" + whole[:-40])
    assert run(listed).outcomes == {"ok": 3}
    assert web.requests.total() == 3
    assert log.read_bytes().startswith(b"[1]")
    last = json.loads(log.read_bytes().splitlines()[-1])
    assert (last["imagenum"], last["outcome"], last["detail"]) == (torn, "ok", "was in the folder")


def test_a_log_from_a_stranger_is_survived(tmp_path, web):
    ((url, digest),) = serve(web, 1)
    row = {"person": "a b", "imagenum": 1, "url": url}
    (tmp_path / "out").mkdir()
    strange = [{**row, "outcome": "too-large", "bytes": "9"}, {**row, "imagenum": 2, "outcome": "\x1b[2J"}]
    (tmp_path / "out" / "fetch.jsonl").write_text("\n".join(map(json.dumps, strange)))
    report = run(write_list(tmp_path, ("a b", 1, url, digest), ("a b", 2, url, md5(b""))))
    assert report.outcomes == {"ok": 1, "\x1b[2J": 1}
    assert "\x1b" not in report.as_text()


# killed and interrupted


def start(listed: Path) -> subprocess.Popen[str]:
    arguments = ["fetch", "pubfig", "--list", str(listed), "-o", str(listed.parent / "out")]
    arguments += ["--allow-private", "--per-host", "8", "--timeout", "120"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def half_way(web: Web, folder: Path) -> Path:
    """A list of which half is served at once, and the other half only to its middle until the gate opens."""
    for i, data in enumerate(IMAGES):
        web.page(f"/{i}", replies.image(data) if i % 2 else replies.gated(data))
    return write_list(folder, *((f"p {i % 3}", i, web.url(f"/{i}"), md5(data)) for i, data in enumerate(IMAGES)))


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob("tmp.*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_ended_run_is_resumed(tmp_path, web, how: signal.Signals):
    listed, out = half_way(web, tmp_path), tmp_path / "out"
    process = start(listed)
    try:
        wait_for(lambda: web.completed.total() >= 6 and len(temporaries(out)) >= 6)
        wait_for(lambda: len((out / "fetch.jsonl").read_bytes().splitlines()) >= 6)
    finally:
        process.send_signal(how)
        _, output = process.communicate(timeout=120)
    if how is signal.SIGKILL:
        assert process.returncode == -how
        assert len(temporaries(out)) == 6
    else:
        assert (process.returncode, output) == (130, "salpipe: interrupted; run the same command again to resume\n")
        assert temporaries(out) == []
    web.abandon()
    web.gate.set()

    assert run(listed).outcomes == {"ok": 12}
    assert web.completed == {f"/{i}": 1 for i in range(12)}
    assert temporaries(out) == []
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    run(write_list(undisturbed, *((f"p {i % 3}", i, web.url(f"/{i}"), md5(data)) for i, data in enumerate(IMAGES))))
    assert files(out) == files(undisturbed / "out")
