"""Runs from URLs by processes, engines, subsets and the command line; and runs that are killed."""

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.subsets.selection import Grouping, Selection
from tests.generation.examples import COMMAND, kept, receipts, run
from tests.generation.test_cluster import sent  # noqa: F401 - a fixture
from tests.kills import script
from tests.remote import examples
from tests.remote.web import Files, Hub


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes. Not to be changed."""
    return examples.folder(tmp_path_factory.mktemp("far") / "photos")


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run from the folder leaves."""
    run(photos, target := tmp_path_factory.mktemp("local") / "shards")
    return kept(target)


@pytest.fixture
def served(photos: Path, web: Files, tmp_path: Path) -> str:
    """The URL of a tar on the web server."""
    return web.put("/photos.tar", examples.tar(photos, tmp_path / "photos.tar").read_bytes())


@pytest.mark.slow
def test_worker_processes_open_their_own_connections(served: str, local: dict[str, bytes], tmp_path: Path) -> None:
    report = run(served, tmp_path / "shards", jobs=2)  # type: ignore[arg-type]
    assert (report.images, report.rejects, report.complete) == (9, 1, True)
    assert kept(tmp_path / "shards") == local


@pytest.mark.parametrize("layout", ["tar", "tables"])
def test_workers_of_a_cluster_read_the_urls(
    layout: str, photos: Path, served: str, web: Files, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: str | Path = served
    if layout == "tables":
        web.hub = Hub("org/birds")
        web.hub.commit(examples.tables(photos, tmp_path / "copy"))
        place = "hf://datasets/org/birds"
    run(place, tmp_path / "here")  # type: ignore[arg-type]
    engine = request.getfixturevalue("sent")
    report = run(place, tmp_path / "there", workers=Workers("dask"))  # type: ignore[arg-type]
    assert report.complete
    assert max(engine.bytes) < 2000
    assert kept(tmp_path / "there") == kept(tmp_path / "here")


def killed_run(url: str, output: str, moment: str) -> None:
    """A run that kills itself before its n-th receipt."""
    from saliency_pipeline.generation.receipt import Receipt

    whole, left = Receipt.write, [int(moment)]

    def write(receipt: Receipt, folder: Path) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(receipt, folder)

    Receipt.write = write  # type: ignore[method-assign]
    run(url, Path(output))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_run_is_resumed(served: str, local: dict[str, bytes], web: Files, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    process = script("tests.remote.test_running", "killed_run(*sys.argv[1:])", served, shards, 2)
    output = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, output
    assert len(receipts(shards)) == 1
    web.requests.clear()
    assert run(served, shards).written == 2  # type: ignore[arg-type]
    assert kept(shards) == local
    assert (0, len(web.files["/photos.tar"])) not in [request.range for request in web.requests]  # the index was kept


def test_subsets_and_duplicates_are_those_of_a_copy(photos: Path, served: str, tmp_path: Path) -> None:
    options = {"selection": Selection(splits=(60, 20, 20), per_class=4), "grouping": Grouping(dedupe="drop-conflicts")}
    run(photos, tmp_path / "local", **options)
    run(served, tmp_path / "remote", **options)  # type: ignore[arg-type]
    assert kept(tmp_path / "remote") == kept(tmp_path / "local")


def salpipe_generate(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["generate", *map(str, arguments)])


def test_the_command_takes_urls(served: str, web: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SALPIPE_ALLOW_PRIVATE")
    url = f"{served}?signature=secret"
    shards = tmp_path / "shards"
    dry = salpipe_generate(url, "-o", shards, "--dry-run", "--json", "--allow-private")
    assert dry.exit_code == 0, dry.output
    outline = json.loads(dry.stdout)
    assert (outline["root"], outline["images"], outline["classes"]) == (f"{served}?...", 10, {"cat": 5, "dog": 5})
    assert not shards.exists()
    done = salpipe_generate(url, "-o", shards, "--allow-private", "--max-rejects", 1, *COMMAND)
    assert done.exit_code == 0, done.output
    assert "secret" not in done.output + dry.output
    for path in shards.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()
    monkeypatch.delenv("SALPIPE_ALLOW_PRIVATE")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://user:secret@host/a.tar"], "https://host: a URL with a user name or password"),
        (["ftp://host/a.tar"], "ftp://: images are read from s3://, gs://, az://, https:// and hf://datasets/"),
        (
            ["hf://datasets/org/birds@v9"],
            "hf://datasets/org/birds@v9: not on the Hub, or not accessible (HTTP 404); check",
        ),
    ],
)
def test_other_urls_are_refused_in_one_line(arguments: list[str], message: str, web: Files, tmp_path: Path) -> None:
    result = salpipe_generate(*arguments, "-o", tmp_path / "shards")
    assert result.exit_code in (1, 2)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"salpipe: error: {message}")
    assert "secret" not in line


def test_a_user_who_is_offline_is_refused_in_one_line(
    web: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = salpipe_generate("hf://datasets/org/birds", "-o", tmp_path / "shards")
    assert result.stderr.strip().endswith("hf://datasets/org/birds: HF_HUB_OFFLINE is set; unset it to use the Hub")
    assert not web.requests


@pytest.mark.parametrize("command", ["audit", "predict", "explain"])
def test_other_commands_refuse_urls(command: str) -> None:
    result = CliRunner().invoke(salpipe, [command, "s3://key:secret@bucket/photos"])
    assert result.exit_code == 2
    assert "s3:// is read by 'salpipe generate' alone; give a path" in result.output
    assert "secret" not in result.output
