"""The walkthroughs of docs/training.md, comparison.md and article.md, command by command, on tiles of photographs."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from tests.scripts import load_script

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    block = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    return [line for line in block.splitlines() if line]


@pytest.fixture
def tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    photos = load_script("demo_photos")
    monkeypatch.setattr(photos, "TRAIN", 4)
    monkeypatch.setattr(photos, "VALIDATION", 2)
    monkeypatch.chdir(tmp_path)
    photos.write_tiles(tmp_path / "tiles")
    return tmp_path


def outputs_of(page: str) -> dict[str, str]:
    """The standard output of every command of a page.

    Comparisons train in this process. Only the first one of a page measures its maps, on few images: all have the same.
    """
    outputs: dict[str, str] = {}
    compared = 0
    for line in commands(page):
        program, *arguments = shlex.split(line)
        assert program == "salpipe"
        if arguments[:2] == ["compare", "shards"]:
            arguments += ["--jobs", "1", "--assess-images", "0" if compared else "12"]
            compared += "--dry-run" not in arguments
        result = CliRunner().invoke(salpipe, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        outputs[line] = result.stdout
    return outputs


@pytest.mark.slow
@pytest.mark.usefixtures("tiles")
def test_every_command_of_the_training_page_runs(tmp_path: Path) -> None:
    outputs = outputs_of("training.md")
    assert len({line.split()[1] for line in outputs}) == 5

    for run in ("baseline", "half", "full"):
        assert json.loads((tmp_path / "runs" / run / "summary.json").read_text())["epochs"] in (1, 2)
        assert (tmp_path / "runs" / run / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "lr" / "lr-find.png").stat().st_size > 10_000
    assert (tmp_path / "half.onnx").stat().st_size > 10_000
    assert (tmp_path / "runs/half/evaluation-validation/confusion.png").exists()
    with open(tmp_path / "predictions" / "predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert (tmp_path / "predictions" / "gallery.html").exists()
    manifest = json.loads((tmp_path / "own-shards" / "manifest.json").read_text())
    assert manifest["provenance"]["source"]["classes"] == manifest["classes"]


@pytest.mark.slow
@pytest.mark.usefixtures("tiles")
def test_every_command_of_the_comparison_page_runs(tmp_path: Path) -> None:
    outputs = outputs_of("comparison.md")
    assert len([line for line in outputs if " compare " in line]) == 8
    content = {
        name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("comparison", "aa", "scarce")
    }
    assert [arm["name"] for arm in content["comparison"]["arms"]] == [
        "baseline",
        "half",
        "half-mismatched",
        "half-center-prior",
    ]
    assert content["comparison"]["verdict"]["word"] == "underpowered"
    uses = json.loads((tmp_path / "uses" / "results.json").read_text())
    assert [arm["name"] for arm in uses["arms"]] == ["baseline", "zoom", "zoom-mismatched", "zoom-center-prior"]
    differences = content["aa"]["settings"][0]["contrasts"][0]["final"]["differences"]
    assert [difference["value"] for difference in differences] == [0.0, 0.0]
    assert [setting["name"] for setting in content["scarce"]["settings"]] == ["2 per class", "all images"]
    assert "McNemar" in json.loads((tmp_path / "two-runs" / "results.json").read_text())["verdict"]["sentence"]
    assert (tmp_path / "comparison" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("tiles")
def test_every_command_of_the_articles_rehearsal_runs(tmp_path: Path) -> None:
    outputs = outputs_of("article.md")
    assert len({line.split()[1] for line in outputs}) == 5
    assert "72" in (tmp_path / "audit" / "duplicates.html").read_text(encoding="utf-8")
    for name, images, classes in (("source", 40, 8), ("target", 24, 4)):
        manifest = json.loads((tmp_path / "pairs" / name / "manifest.json").read_text())
        assert (manifest["images"], len(manifest["classes"])) == (images, classes)
    content = json.loads((tmp_path / "comparison" / "results.json").read_text())
    names = [arm["name"] for arm in content["arms"]]
    assert names == ["baseline", "half", "full", "half-mismatched", "half-center-prior"]
    assert (tmp_path / "runs/target/evaluation-test/confusion.png").exists()
