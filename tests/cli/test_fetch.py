"""`salpipe fetch` on the command line; downloads themselves are tested in tests/fetching."""

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from click.testing import CliRunner, Result

from saliency_pipeline.cli import main
from tests.broken_images import encode, photo
from tests.fetching import web as replies
from tests.fetching.web import Web

IMAGE = encode(photo(), "JPEG")
MD5 = hashlib.md5(IMAGE).hexdigest()


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory):
    """Three rows: good, dead and damaged."""
    path = tmp_path_factory.mktemp("list") / "dev_urls.txt"
    with Web() as web:
        good, dead = web.page("/good", replies.image(IMAGE)), web.page("/dead", replies.status(404))
        rows = (f"Ada\t1\t{good}\t1,2,3,4\t{MD5}", f"Bob\t1\t{dead}\t1,2,3,4\t{'0' * 32}", "damaged")
        path.write_text("\n".join(rows))
        yield path


def fetch(listed: Path, output: Path, *arguments: object) -> Result:
    words = ["fetch", "pubfig", "--list", listed, "-o", output, "--allow-private", *arguments]
    return CliRunner().invoke(main.salpipe, [str(word) for word in words])


def test_the_report_is_on_standard_output_and_notes_are_not(listed, tmp_path):
    result = fetch(listed, tmp_path / "out")
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'out'}: 1 of 2 images present, 1 downloaded now (0.0 MB in ")
    assert rest == [
        "ok 1, not-found 1",
        "2 listed: 1 present (0 duplicated), 0 wrong md5, 0 damaged, 1 missing",
        "2 of 2 people have fewer than 10 images: Ada 1, Bob 0",
    ]
    assert result.stderr == "salpipe: dev_urls.txt:3: not 5 columns separated by tabs\n"
    assert (tmp_path / "out" / "Ada" / "1.jpg").read_bytes() == IMAGE


def test_json_is_one_object(listed, tmp_path):
    result = fetch(listed, tmp_path / "out", "--json", "--quiet", "--person", "Ada", "--per-person", 1)
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["fetch"].pop("seconds") > 0
    assert report["fetch"] == {
        "folder": str(tmp_path / "out"),
        "listed": 1,
        "images": 1,
        "downloaded": 1,
        "bytes": len(IMAGE),
        "outcomes": {"ok": 1},
        "people": 1,
        "few_below": 1,
        "few": {},
        "notes": ["dev_urls.txt:3: not 5 columns separated by tabs"],
    }
    assert report["presence"]["present"] == 1


def test_a_run_without_an_image_fails(listed, tmp_path):
    result = fetch(listed, tmp_path / "of\nBob", "--person", "Bob")
    out = f"'{tmp_path}/of\\nBob'"
    assert result.exit_code == 1
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"{out}: 0 of 1 images present, 0 downloaded now (")
    assert rest[0] == "not-found 1"
    assert result.stderr.splitlines()[-1] == (
        f"salpipe: error: {out}: no image is present; see fetch.jsonl in it for the outcome per URL"
    )
    result = fetch(listed, tmp_path / "of\nBob", "--person", "Bob", "--json", "-q")
    assert (result.exit_code, json.loads(result.stdout)["fetch"]["images"]) == (1, 0)
    assert fetch(listed, tmp_path / "of\nBob", "--person", "Bob", "--check").exit_code == 0


def test_no_person_takes_the_place_of_the_log(listed, tmp_path):
    named = tmp_path / "dev_urls.txt"
    named.write_text(listed.read_text().replace("Bob\t1\t", "Fetch.JSONL\t1\t"))
    result = fetch(named, tmp_path / "out")
    assert result.exit_code == 0
    assert ": 1 of 1 images present" in result.stdout
    assert "salpipe: dev_urls.txt:2: a folder cannot have the name of the log, fetch.jsonl\n" in result.stderr


def test_check_downloads_nothing(listed, tmp_path):
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "1.jpg").write_bytes(IMAGE[:99])
    result = fetch(listed, tmp_path, "--check", "-q")
    assert result.stdout.startswith("2 listed: 0 present (0 duplicated), 0 wrong md5, 1 damaged, 1 missing\n")
    assert [path.name for path in tmp_path.iterdir()] == ["Ada"]
    assert json.loads(fetch(listed, tmp_path, "--check", "--json").stdout)["fetch"] is None


def test_mistakes_are_one_line(listed, tmp_path):
    result = fetch(listed, tmp_path, "--person", "Adda")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"salpipe: error: {listed}: no person called 'Adda' in it; did you mean 'Ada'?\n"
    assert fetch(listed, tmp_path, "--jobs", 0).exit_code == 2
    assert fetch(listed, tmp_path, "--timeout", 0).exit_code == 2
    assert fetch(listed, tmp_path, "--check", "--retries", 21).exit_code == 2
    assert fetch(tmp_path / "none", tmp_path).exit_code == 2


def test_a_file_may_hold_the_settings(listed, tmp_path):
    (tmp_path / "fetch.toml").write_text('[fetch]\nperson = ["Ada"]\nmax-bytes = 9\n')
    result = fetch(listed, tmp_path / "out", "--config", tmp_path / "fetch.toml", "--retries", 0)
    assert "too-large 1\n" in result.stdout
