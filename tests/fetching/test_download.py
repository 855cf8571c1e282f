"""Outcomes of downloads from faulty servers."""

import dataclasses
import hashlib
import json
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from aiohttp.abc import AbstractResolver, ResolveResult

from saliency_pipeline.fetching.download import LONGEST_WAIT, suffix_of
from saliency_pipeline.fetching.fetch import fetch
from saliency_pipeline.fetching.fetch_log import Outcome
from saliency_pipeline.remote import session
from saliency_pipeline.remote.session import Limits, is_public, retry_after
from tests.broken_images import encode, good_files, photo
from tests.fetching import web as replies
from tests.fetching.web import Web

LIMITS = Limits(timeout=1, retries=2, max_bytes=60_000, max_redirects=3, allow_private=True, backoff=0.01)
JPEG = encode(photo(), "JPEG")
MD5 = hashlib.md5(JPEG).hexdigest()
OTHER = encode(photo(seed=1), "JPEG")


class Names(AbstractResolver):
    """Names and their addresses; no other names exist."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", "."): address for name, address in names.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = self.names[host]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def write_list(path: Path, *rows: tuple[str, str | None], person: str = "person one", first: int = 1) -> Path:
    """A list of (URL, md5), which are numbered."""
    lines = ["# PubFig Dataset v1.2", "#\tperson\timagenum\turl\trect\tmd5sum"]
    for number, (url, md5) in enumerate(rows, first):
        lines.append("\t".join([person, str(number), url, "4,4,20,20", *([md5] if md5 else [])]))
    path.write_text("\n".join(lines))
    return path


def log_of(folder: Path) -> list[Outcome]:
    return [Outcome(**json.loads(line)) for line in (folder / "fetch.jsonl").read_bytes().splitlines()]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# name: the replies, the outcome, the status, the attempts
FAULTS: dict[str, tuple[list[replies.Reply], str, int | None, int]] = {
    "whole": ([replies.image(JPEG)], "ok", 200, 1),
    "octets": ([replies.image(JPEG, "application/octet-stream")], "ok", 200, 1),
    "untyped": ([replies.image(JPEG, None)], "ok", 200, 1),
    "mistyped": ([replies.image(JPEG, "image/png; charset=utf-8")], "ok", 200, 1),
    "missing": ([replies.status(404, b"no")], "not-found", 404, 1),
    "gone": ([replies.status(410)], "gone", 410, 1),
    "forbidden": ([replies.status(403)], "http-error", 403, 1),
    "empty-answer": ([replies.status(204)], "http-error", 204, 1),
    "broken": ([replies.status(500)], "http-error", 500, 3),
    "broken-twice": ([replies.status(500), replies.status(503), replies.image(JPEG)], "ok", 200, 3),
    "busy": ([replies.status(429, Retry_After="0"), replies.image(JPEG)], "ok", 200, 2),
    "silent": ([replies.stalled()], "time-out", None, 3),
    "stalled": ([replies.stalled(JPEG[:500])], "time-out", None, 3),
    "stalled-once": ([replies.stalled(JPEG[:500]), replies.image(JPEG)], "ok", 200, 2),
    "reset": ([replies.reset], "connection-error", None, 3),
    "reset-once": ([replies.reset] * 2 + [replies.image(JPEG)], "ok", 200, 2),
    "nonsense": ([replies.nonsense], "http-error", None, 1),
    "cut": ([replies.image(JPEG[:900], length=len(JPEG))], "truncated", 200, 3),
    "cut-once": ([replies.image(JPEG[:900], length=len(JPEG)), replies.image(JPEG)], "ok", 200, 2),
    "cut-chunks": ([replies.cut_chunks(JPEG)], "truncated", 200, 3),
    "shortened": ([replies.image(JPEG[:-9])], "md5-mismatch", 200, 1),
    "announced": ([replies.image(JPEG, length=10**12)], "too-large", 200, 1),
    "endless": ([replies.endless(JPEG)], "too-large", 200, 1),
    "page": ([replies.image(b"<html>parked", "text/html")], "wrong-type", 200, 1),
    "page-called-image": ([replies.image(b"<html><body>parked")], "not-an-image", 200, 1),
    "nothing": ([replies.image(b"")], "not-an-image", 200, 1),
    "short": ([replies.image(b"GIF8")], "not-an-image", 200, 1),
    "zipped": ([replies.status(200, b"\x1f\x8b\x08" + bytes(60), Content_Encoding="gzip")], "not-an-image", 200, 1),
    "another": ([replies.image(OTHER)], "md5-mismatch", 200, 1),
    "moved": ([replies.redirect("/whole", 301)], "ok", 200, 1),
    "moved-twice": ([replies.redirect("moved", 307)], "ok", 200, 1),
    "moved-to-nothing": ([replies.redirect("/none")], "not-found", 404, 1),
    "moved-nowhere": ([replies.status(302)], "http-error", 302, 1),
    "circle": ([replies.redirect("/circle?")], "redirect-loop", None, 1),
    "chain": ([replies.redirect("/chain1")], "too-many-redirects", None, 1),
    "to-file": ([replies.redirect("file:///etc/passwd")], "bad-url", None, 1),
    "to-garbage": ([replies.redirect("http://[")], "bad-url", None, 1),
}

STALLS = ("silent", "stalled", "stalled-once")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome], Web, float]:
    """Two runs over all of them, which list the same image; it must not be copied from one to another."""
    folder = tmp_path_factory.mktemp("faults")
    with Web() as web, pytest.MonkeyPatch.context() as patch:
        # an md5 of its own for each, by not looking at what is there already
        patch.setattr("saliency_pipeline.fetching.retrieval._content", lambda row: row.url)
        urls = {name: web.page(f"/{name}", *answers) for name, (answers, *_) in FAULTS.items()}
        web.page("/circle?", replies.redirect("/circle"))
        for step in range(1, 5):
            web.page(f"/chain{step}", replies.redirect(f"/chain{step + 1}"))
        web.page("/chain5", replies.image(JPEG))
        urls |= {
            "no-host": "http:///a.jpg",
            "no-port": "http://host:99999/a.jpg",
            "no-scheme": "host/a.jpg",
            "ftp": "ftp://host/a.jpg",
            "closed": f"http://127.0.0.1:{closed_port()}/a.jpg",
            "unknown": "http://unknown.example/a.jpg",
        }
        stalls = {name: urls[name] for name in urls if name in STALLS}
        others = {name: urls[name] for name in urls if name not in STALLS}
        # a busy machine lets what replies wait as well, and only what stalls is to reach its time-out
        for part, first, timeout in ((others, 1, 120), (stalls, 100, LIMITS.timeout)):
            listed = write_list(folder / "dev_urls.txt", *[(url, MD5) for url in part.values()], first=first)
            limits, started = dataclasses.replace(LIMITS, timeout=timeout), time.monotonic()
            fetch(listed, folder / "out", jobs=64, per_host=64, limits=limits, resolver=Names())
        seconds = time.monotonic() - started
    by_url = {outcome.url: outcome for outcome in log_of(folder / "out")}
    return folder / "out", {name: by_url[url] for name, url in urls.items()}, web, seconds


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_its_outcome(faults, name):
    _, outcomes, web, _ = faults
    _, outcome, code, attempts = FAULTS[name]
    result = outcomes[name]
    assert (result.outcome, result.status, result.attempts) == (outcome, code, attempts), result
    # aiohttp asks once more by itself where a connection was reset before any reply
    more = {"whole": 2, "moved": 1, "reset": 3, "reset-once": 1}
    assert web.requests[f"/{name}"] == attempts + more.get(name, 0)
    assert result.detail.isprintable()
    if outcome == "ok":
        assert (result.bytes, result.md5) == (len(JPEG), MD5)


@pytest.mark.parametrize("name", ["no-host", "no-port", "no-scheme", "ftp"])
def test_what_is_no_url_of_the_web_is_not_tried(faults, name):
    assert faults[1][name].outcome == "bad-url"


def test_hosts_that_are_not_there(faults):
    closed, unknown = faults[1]["closed"], faults[1]["unknown"]
    assert (closed.outcome, closed.attempts) == ("connection-error", 3)
    assert (unknown.outcome, unknown.attempts) == ("connection-error", 1)  # it will not exist in a second either


def test_only_whole_images_are_kept_and_nothing_else(faults):
    folder, outcomes, _, _ = faults
    kept = {f"{outcome.imagenum}.jpg" for outcome in outcomes.values() if outcome.outcome == "ok"}
    assert {path.name for path in (folder / "person one").iterdir()} == kept
    assert len(kept) == sum(outcome == "ok" for _, outcome, *_ in FAULTS.values())
    assert all(path.read_bytes() == JPEG for path in (folder / "person one").iterdir())
    assert {path.name for path in folder.iterdir()} == {".lock", "dev_urls.txt", "fetch.jsonl", "person one"}


def test_faults_take_no_longer_than_their_time_outs(faults):
    """Three attempts, and not even one of them until the server gives up."""
    assert 3 * LIMITS.timeout < faults[3] < replies.LONG


def test_visitors_say_who_they_are(faults):
    (agent,) = faults[2].agents
    assert agent.startswith("salpipe/")
    assert agent.endswith(" (research data set retrieval)")


def test_a_mismatch_has_the_md5_that_came(faults):
    assert faults[1]["another"].md5 == hashlib.md5(OTHER).hexdigest()
    assert faults[1]["cut"].detail == f"900 of {len(JPEG):,} bytes"


def one(tmp_path: Path, url: str, limits: Limits = LIMITS, **options: object) -> Outcome:
    fetch(write_list(tmp_path / "dev_urls.txt", (url, MD5)), tmp_path / "out", limits=limits, **options)
    return log_of(tmp_path / "out")[-1]


def test_a_length_that_is_too_short_makes_no_image(tmp_path):
    with Web() as web:
        url = web.page("/", replies.image(JPEG, length=len(JPEG) - 9))
        # by how the pieces arrive the rest is seen as no HTTP, or not at all
        assert one(tmp_path, url).outcome in ("http-error", "md5-mismatch")
        assert not list(tmp_path.glob("out/*/*"))


def test_a_server_that_drips_is_left_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_TOTAL", 2)
    with Web() as web:
        url = web.page("/drip", replies.dripping(JPEG, 0.02))
        limits = dataclasses.replace(LIMITS, timeout=1, retries=0)
        started = time.monotonic()
        assert one(tmp_path, url, limits).outcome == "time-out"
        assert 2 <= time.monotonic() - started < 0.02 * len(JPEG)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/secret", "http://inner.example:{port}/secret", "http://[::1]:{port}/secret"]
)
def test_a_redirect_into_the_own_network_is_refused(tmp_path, monkeypatch, target):
    monkeypatch.setattr(session, "is_public", lambda host: host == "127.0.0.1" or is_public(host))
    with Web() as web:
        web.page("/secret", replies.image(JPEG))
        url = web.page("/moved", replies.redirect(target.format(port=web.port)))
        limits = dataclasses.replace(LIMITS, allow_private=False)
        outcome = one(tmp_path, url, limits, resolver=Names(inner_example="127.0.0.2"))
        assert (outcome.outcome, outcome.attempts) == ("refused-address", 1)
        assert "is not an address of the public Internet" in outcome.detail
        assert web.requests == {"/moved": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1"])
def test_loopback_is_refused_however_it_is_spelt(tmp_path, host):
    with Web() as web:
        web.page("/", replies.image(JPEG))
        outcome = one(tmp_path, web.url("/", host), dataclasses.replace(LIMITS, allow_private=False))
        assert outcome.outcome in ("refused-address", "bad-url")
        assert not web.requests


@pytest.mark.parametrize(
    "host",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2001:db8::1", "no address",
        "0.1.2.3", "127.255.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.170", "192.88.99.1", "198.18.0.1",
        "198.19.255.255", "198.51.100.7", "203.0.113.7", "239.1.1.1", "255.255.255.254", "168.63.129.16",
        "100.100.100.200", "172.31.255.255", "100.127.255.255", "::127.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808", "64:ff9b:1:ffff::1", "100::1",
        "100:0:0:1::1", "2001::1", "2001:0:808:808::f7f7:f7f7", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1",
        "2002:a00:1::1", "2002:c0a8:101::1", "2002:a9fe:a9fe::", "3fff::1", "3fff:fff:ffff::1", "4000::1", "5f00::1",
        "fd00:ec2::254", "fdff::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff0e::1", "ff05::1", "8000::1",
        "fe80::1%1", "2606:4700:4700::1111%eth0", "::ffff:8.8.8.8%1", "8.8.8.8%1", "8.8.8", "08.8.8.8", "0x8080808", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(host):
    assert not is_public(host)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "1.0.0.1",
        "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255",
        "172.15.255.255", "172.32.0.0", "192.0.1.1", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2000::1",
        "2001:200::1", "2001:4860:4860::8888", "2a00:1450:4001::1", "3ffe::1", "3fff:1000::1",
    ],
)  # fmt: skip
def test_addresses_that_are_public(host):
    assert is_public(host)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..example", "xn--\u00fc.example"])
def test_names_that_cannot_be_looked_up(tmp_path, host):
    with Web() as web:
        for url in (f"http://{host}/", web.page("/", replies.redirect(f"http://{host}/"))):
            assert one(tmp_path, url).outcome == "bad-url"


def test_a_wait_that_a_server_asks_for_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_pipeline.fetching.download.LONGEST_WAIT", 0.1)
    with Web() as web:
        url = web.page("/", replies.status(503, Retry_After="3600"), replies.image(JPEG))
        assert one(tmp_path, url).outcome == "ok"


def test_waits_that_servers_ask_for():
    assert retry_after("7") == 7
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert retry_after("Fri, 31 Dec 2100 23:59:59 GMT") > LONGEST_WAIT
    assert [retry_after(value) for value in ("", "soon", "-5", "1e9", "Fri, 31 Dec 1999 23:59:59")] == [0] * 5


def test_content_decides_the_suffix():
    kinds = {"jpg": "jpg", "png": "png", "webp": "webp", "bmp": "bmp", "gif": "gif", "tif": "tif", "tiff": "tif"}
    for name, data in good_files().items():
        assert suffix_of(data[:16]) == kinds.get(name.rpartition(".")[2])
    assert [suffix_of(data) for data in (b"", b"BMW is a maker of", b"<html>", b"\xff\xd8")] == [None] * 4
    # a bitmap of OS/2, whose header has another size than those of Windows
    assert suffix_of(b"BM" + b"\x01" * 4 + bytes(4) + b"\x1e\0\0\0" + b"\x18\0\0\0") == "bmp"
