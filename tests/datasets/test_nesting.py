"""Outputs within image folders are refused, others are not."""

import itertools
from pathlib import Path

import pytest

from saliency_pipeline.datasets.files.listing import PLOTS
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.datasets.nesting import OWN_FOLDERS, refuse_among_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import CONFUSION, EVALUATION, RELIABILITY
from saliency_pipeline.figures.plotting import PICTURES
from saliency_pipeline.gallery.page import CONTACT_SHEET, PAGE
from saliency_pipeline.training.find_lr import DATA, PICTURE
from saliency_pipeline.training.runlog import CURVES, METRICS


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


CLASSES = tuple(f"{name}/{number}.jpg" for name, number in itertools.product(("cat", "dog"), range(2)))
TREES = {
    "flat": ("1.jpg", "2.png", "3.webp", "readme.txt"),
    "classes": (*CLASSES, "readme.txt"),
    "splits": tuple(f"{part}/{name}" for part in ("train", "val") for name in CLASSES),
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("output", ["", "gallery", "new/deeper", "../photos/gallery"])
def test_an_output_among_images_is_refused(tmp_path: Path, tree: str, output: str) -> None:
    photos = make(tmp_path / "photos", *TREES[tree])
    shards = make(tmp_path / "elsewhere" / "shards", "shard-00000.h5")
    before = sorted(photos.rglob("*"))
    with pytest.raises(SalpipeError, match="choose an output folder outside") as caught:
        refuse_among_images(photos / output, shards)
    assert "\n" not in str(caught.value)
    assert sorted(photos.rglob("*")) == before


def test_one_class_and_a_link_are_seen_through(tmp_path: Path) -> None:
    photos = make(tmp_path / "photos", "cat/chelsea.png")
    (tmp_path / "linked").symlink_to(photos, target_is_directory=True)
    for output in ("photos", "linked", "photos/cat"):
        with pytest.raises(SalpipeError, match="a folder of images"):
            refuse_among_images(tmp_path / output)


def test_a_folder_of_a_split_or_class_is_seen_from_within(tmp_path: Path) -> None:
    photos = make(tmp_path / "photos", *TREES["splits"])
    for output in ("train/gallery", "train/cat", "test"):
        with pytest.raises(SalpipeError):
            refuse_among_images(photos / output)


@pytest.mark.parametrize(
    "names",
    [
        ("photos/1.jpg", "photos/2.jpg", "photos/3.jpg", "shards/shard-00000.h5"),
        ("flowers/1.jpg", "birds/1.jpg", "shards/shard-00000.h5"),
        ("photos/cat/1.jpg", "photos/dog/1.jpg", "shards/shard-00000.h5"),
        ("figure.png", "screenshot.png", "paper.pdf", "notes.md", "data.csv", "shards/shard-00000.h5"),
        ("1.png", "2.png", "3.png", "a/x", "b/x", "c/x"),
    ],
)
def test_a_place_of_work_is_no_image_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    work = make(tmp_path / "work", *names)
    refuse_among_images(work / "gallery", work / "shards")
    refuse_among_images(work / "results" / "gallery", work / "shards")


def test_the_users_home_is_no_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(make(tmp_path, "Pictures/1.jpg", "Desktop/2.png")))
    refuse_among_images(tmp_path / "gallery", "/elsewhere/shards")


def test_an_output_of_before_is_no_image_folder(tmp_path: Path) -> None:
    beside = {CONTACT_SHEET: PAGE, CONFUSION: EVALUATION, RELIABILITY: EVALUATION, PICTURE: DATA, CURVES: METRICS}
    assert beside == PLOTS
    assert {PICTURES} == OWN_FOLDERS
    output = make(tmp_path / "output", *PLOTS, f"{PICTURES}/a.png", "runs/one/curves.png")
    refuse_among_images(output)
    refuse_among_images(output / "runs" / "two")


def test_a_file_is_refused_for_the_folders_above_it(tmp_path: Path) -> None:
    photos = make(tmp_path / "photos", *TREES["flat"])
    with pytest.raises(SalpipeError, match=r"model\.onnx lies inside the image folder"):
        refuse_among_images(photos / "model.onnx")
    refuse_among_images(tmp_path / "model.onnx", tmp_path / "run")


@pytest.mark.parametrize(("picture", "beside"), PLOTS.items())
def test_pictures_that_the_commands_drew_are_no_data(tmp_path: Path, picture: str, beside: str) -> None:
    make(tmp_path, "1.jpg", picture)
    assert len(read_folder(tmp_path)) == 2
    (tmp_path / beside).touch()
    catalogue = read_folder(tmp_path)
    assert [record.key for record in catalogue.records] == ["1.jpg"]
    assert catalogue.passed_over["pictures that salpipe drew"] == 1
