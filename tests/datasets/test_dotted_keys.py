"""WebDataset samples whose keys have dots, and files that dots make parts of a sample."""

from pathlib import Path

import pytest

from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from tests.datasets.archives import write_tar


def read(path: Path, *names: str) -> Catalogue:
    """A shard of these files; those that end with .cls contain 0, or 1 if their name has a 1."""
    return read_images(
        write_tar(path / "x-0.tar", {name: str(int("1" in name)).encode() for name in names}), "webdataset"
    )


def labels(catalogue: Catalogue) -> dict[str, int]:
    return {record.key.removeprefix("x-0/"): record.label for record in catalogue.records}


@pytest.mark.parametrize("root", ["folder", "tar"])
def test_keys_with_dots_are_read_and_the_dots_are_noted(tmp_path: Path, root: str) -> None:
    names = (
        "n01.5.jpg",
        "n01.5.cls",
        "n01.6.jpg",
        "n01.6.cls",
        "n02.5.jpg",
        "n02.5.cls",
        "2.11.28_cat.JPG",
        "2.11.28_cat.cls",
    )
    read(tmp_path, *names)
    catalogue = read_images(tmp_path if root == "folder" else tmp_path / "x-0.tar")
    assert catalogue.layout == "webdataset"
    assert labels(catalogue) == {"n01.5.jpg": 1, "n01.6.jpg": 1, "n02.5.jpg": 0, "2.11.28_cat.JPG": 1}
    assert sum("keys have dots" in note for note in catalogue.notes) == 1
    assert catalogue.passed_over == {}


def test_without_labels_they_are_read_too(tmp_path: Path) -> None:
    assert labels(read(tmp_path, "a.1.jpg", "a.2.jpg", "b.1.jpg")) == {"a.1.jpg": -1, "a.2.jpg": -1, "b.1.jpg": -1}


def test_dotted_and_usual_keys_may_lie_side_by_side(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "a.jpg", "a.cls", "a.1.jpg", "a.1.cls", "a.B.jpg", "a.b.jpg", "a.B.cls", "a.b.cls")
    assert labels(catalogue) == {"a.jpg": 0, "a.1.jpg": 1, "a.B.jpg": 0, "a.b.jpg": 0}


def test_parts_of_a_sample_are_counted_and_not_taken_for_images(tmp_path: Path) -> None:
    catalogue = read(
        tmp_path, "a.jpg", "a.cls", "a.seg.png", "a.txt", "b.rgb.jpg", "b.cls", "c.left.jpg", "c.right.jpg", "c.cls"
    )
    assert labels(catalogue) == {"a.jpg": 0, "b.rgb.jpg": 0}
    part = "a picture that its dots make a part of a sample; one with dots in its key needs a .cls or .json of its own"
    assert catalogue.passed_over == {".txt": 1, part: 3, "a sample without an image": 1}
    assert "x-0.tar: a.seg.png: " + part in catalogue.notes


def test_members_without_an_ending_are_samples_where_they_begin_like_an_image(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    files = {"a": jpeg, "a.cls": b"0", "b.dat": jpeg, "b.cls": b"1", "README": b"text", "._a.jpg": jpeg, "c.cls": b"1"}
    catalogue = read_images(write_tar(tmp_path / "x-0.tar", files))
    assert labels(catalogue) == {"a": 0, "b.dat": 1}
    assert catalogue.passed_over == {"without ending": 1, "hidden": 1, "a sample without an image": 1}
    assert "taken for images by their first bytes: 1 .dat, 1 without ending" in catalogue.notes


def test_a_second_file_of_an_ending_is_named(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "a.jpg", "a.JPG", "a.cls")
    assert catalogue.notes == ("x-0.tar: a.JPG: the second file of a sample with this ending",)


def test_what_lies_beside_the_shards_is_counted(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "logo.png", "x-1.tgz", "docs/a.jpg"):
        (tmp_path / name).touch()
    catalogue = read(tmp_path, "a.jpg", "a.cls")
    beside = read_images(tmp_path, "webdataset")
    assert labels(beside) == labels(catalogue)
    assert beside.passed_over == {
        ".md": 1,
        ".tgz": 1,
        "an image beside the data set's own files": 1,
        "a folder beside the data set's own files": 1,
    }


def test_a_compressed_shard_says_so(tmp_path: Path) -> None:
    (tmp_path / "x-0.tar.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(SalpipeError, match="compressed; unpack it with gunzip"):
        read_images(tmp_path / "x-0.tar.gz", "webdataset")


def test_an_image_and_a_label_with_names_of_their_own_are_one_sample(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "0.image.jpg", "0.label.cls", "1.image.jpg", "1.label.cls", "1.caption.txt")
    assert labels(catalogue) == {"0.image.jpg": 0, "1.image.jpg": 1}
    assert catalogue.notes == ("skipped: 1 .txt (not read)",)
    several = read(tmp_path, "0.a.jpg", "0.b.jpg", "0.label.cls")
    assert labels(several) == {"0.a.jpg": -1, "0.b.jpg": -1}


def test_a_sample_whose_image_has_no_ending_of_images_is_recognized_by_its_label(tmp_path: Path) -> None:
    write_tar(tmp_path / "x-0.tar", {"0.image": b"\xff\xd8\xff\xe0", "0.cls": b"3"})
    catalogue = read_images(tmp_path)
    assert catalogue.layout == "webdataset"
    assert (labels(catalogue), catalogue.classes) == ({"0.image": 0}, ("3",))
