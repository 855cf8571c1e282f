"""`salpipe predict` on the command line: files, output and errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.datasets.open import read_images
from tests.evaluation.runs import PHOTOGRAPHS, run_on, shards_of
from tests.gallery.test_page import Page
from tests.generation.examples import flat, photographs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    return run_on(shards_of(photographs(root / "photos", PHOTOGRAPHS), root / "shards"), root / "run")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "my").mkdir()
    return flat(tmp_path / "my" / "photos", 3)


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["predict", *map(str, arguments)], prog_name="salpipe")


def test_everything_goes_beside_the_images(run: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = predict(images, "--run", run)
    assert result.exit_code == 0, result.output
    folder = images.parent / "photos-predictions"
    first, second, third = result.stdout.splitlines()
    assert first == f"{folder}: 3 images classified, 0 rejected"
    assert sum(int(part.split()[-1]) for part in second.split(", ")) == 3
    assert set(second.replace(",", "").split()[::2]) <= {"cat", "dog"}
    assert third == str(folder / "gallery.html")
    assert {path.name for path in folder.iterdir()} == {
        "predictions.csv",
        "predictions.json",
        "gallery.html",
        "contact-sheet.png",
        "shards",
    }
    assert all(line.startswith("salpipe: ") for line in result.stderr.splitlines())

    again = predict(images, "--run", run, "--quiet", "--count", 2)
    assert (again.stdout, again.stderr) == (result.stdout, "")
    assert len(Page(folder / "gallery.html").all("article")) == 2
    monkeypatch.chdir(images)
    assert predict(".", "--run", run, "-q").stdout.startswith(f"{folder}: 3 images")


def test_json_and_one_image(run: Path, images: Path) -> None:
    report = json.loads(predict(images / "2.jpg", "--run", run, "--json", "--device", "cpu").stdout)
    folder = images / "2-predictions"
    (name,) = report.pop("classes")
    assert name in ("cat", "dog")
    assert report == {
        "folder": str(folder),
        "images": 1,
        "rejects": 0,
        "predictions": str(folder / "predictions.csv"),
        "page": str(folder / "gallery.html"),
        "passed_over": {},
    }
    # the results beside the image are no data of the next run
    catalogue = read_images(images)
    assert all("predictions" not in record.key for record in catalogue.records)
    assert catalogue.passed_over["pictures that salpipe drew"] == 1


def test_many_classes_are_not_all_named(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_pipeline.cli.predict.NAMED", 0)
    result = predict(images, "--run", run, "-o", tmp_path / "out")
    assert result.stdout.splitlines()[1].strip() in ("and 1 more class", "and 2 more classes")


def test_mistakes(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "my" / "empty").mkdir()
    assert "Missing option '--run'" in predict(images).stderr
    assert predict(tmp_path / "none", "--run", run).exit_code == 2
    for arguments, message in (
        ([images, "--run", images], "holds no trained network; give a run that 'salpipe train' made"),
        ([images, "--run", run, "-o", images / "inside"], "lies inside the image folder"),
        ([tmp_path / "my" / "empty", "--run", run], "no images found; they must end in"),
    ):
        result = predict(*arguments, "-q")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert message in result.stderr
