"""Notes: what is counted and named of skipped files."""

import json
import os
from pathlib import Path

import pytest

from saliency_pipeline.datasets.files.notes import KEPT, Notes
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets.archives import entry, tar_bytes, write_tar


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_everything_skipped_is_counted_by_kind_in_one_line(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", "cat/a.txt", "dog/a.TXT", "list.csv", "cat/.hidden.jpg", "README")
    make(tmp_path, "Thumbs.db", "lost+found/2.jpg", "cat/deep/empty/x.csv")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "cat" / "up").symlink_to(tmp_path, target_is_directory=True)
    counts = {
        ".txt": 2,
        ".csv": 2,
        "of the operating system": 2,
        "hidden": 1,
        "without ending": 1,
        "pipes, sockets or devices": 1,
        "loops of links": 1,
        "folders without images": 1,
    }
    for catalogue in (read_folder(tmp_path), read_images(tmp_path)):
        assert catalogue.passed_over == counts
        assert [note for note in catalogue.notes if note.startswith("skipped")] == [
            "skipped: 2 .csv, 2 .txt, 1 without ending (not read); 2 of the operating system, "
            "1 folders without images, 1 hidden, 1 loops of links, 1 pipes, sockets or devices"
        ]


def test_what_is_named_is_counted_by_its_reason_and_remarks_are_not(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg", "samples/1.jpg", "train/dog/a.txt")
    catalogue = read_folder(tmp_path)
    assert catalogue.passed_over == {
        ".txt": 1,
        "images beside the splits": 1,
        "a folder without images, left out": 1,
        next(kind for kind in catalogue.passed_over if kind.startswith("passed over beside train and val")): 1,
    }
    notes = Notes()
    notes.remark("dev_urls.txt:4", "its rect has no area")
    assert (len(notes), notes.passed_over()) == (1, {})


def test_a_hostile_tree_of_kinds_is_counted_in_a_few(tmp_path: Path) -> None:
    notes = Notes()
    for number in range(5000):
        notes.count(f".x{number}")
        notes.add(f"{number}", f"reason {number} {'long ' * 100}")
    counts = notes.passed_over()
    assert sum(counts.values()) == 10_000
    assert len(json.dumps(counts)) < 8000
    assert max(map(len, counts)) <= 160
    assert len(notes.lines()[-1]) < 500


def test_names_are_no_more_than_the_first_of_a_reason() -> None:
    notes = Notes()
    for number in range(100):
        notes.add(f"{number}", "a link")
    assert len(notes.lines()) == KEPT + 1


@pytest.mark.parametrize("layout", ["ilsvrc", "tar", "webdataset", "parquet", "pubfig83", "tiny-imagenet"])
def test_every_layout_counts(tmp_path: Path, layout: str) -> None:
    root = tmp_path
    if layout == "ilsvrc":
        make(root, "train/n01440764/n01440764_1.JPEG", "train/n01440764/a.txt", "train/b.txt", "c.txt", "synsets.txt")
    elif layout == "tar":
        files = {"n01440764_1.JPEG": b"1", "n01440764/a.txt": b"", "b.txt": b"", "c.txt": b""}
        root = write_tar(root / "ILSVRC2012_img_train.tar", files)
    elif layout == "webdataset":
        write_tar(root / "x-0.tar", {"a.jpg": b"1", "a.cls": b"0", "a.txt": b"caption", "b.jpg": b"2", "b.txt": b""})
        make(root, "README.txt", "classnames.txt")
        (root / "classnames.txt").write_text("cat")
    elif layout == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.table({"image": [{"bytes": b"1", "path": "1.jpg"}], "label": [0]})
        parquet.write_table(table, make(root, "data/README.txt", "a.txt", "b.txt") / "data" / "train.parquet")
    elif layout == "pubfig83":
        root = make(root / "pubfig83", "Tom Hanks/1.jpg", "Tom Hanks/a.txt", "b.txt", "c.txt", "dev_people.txt")
    else:
        make(root, "train/n01440764/images/n01440764_0.JPEG", "train/n01440764/n01440764_boxes.txt", "wnids.txt")
        make(root, "val/val_annotations.txt", "train/a.txt", "b.txt", "test/c.txt")
    catalogue = read_images(root)
    assert catalogue.passed_over[".txt"] == 3
    assert sum("3 .txt" in note for note in catalogue.notes) == 1


# tars of plain images


def test_a_tar_is_read_like_the_folder_it_holds(tmp_path: Path) -> None:
    names = ("train/cat/1.jpg", "train/dog/2.PNG", "val/cat/3.jpg")
    files = {name: name.encode() for name in names}
    for name, data in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    folder = read_images(tmp_path / "photos")
    for above in ("", "photos/", "./home/photos/"):
        junk = {f"{above}train/a.txt": b"", f"{above}train/cat/._1.jpg": b""}
        tar = read_images(
            write_tar(tmp_path / "photos.tar", {above + name: data for name, data in files.items()} | junk)
        )
        assert (tar.layout, tar.classes) == ("folders", folder.classes)
        assert [(r.key, r.label, r.split, r.read()) for r in tar.records] == [
            (r.key, r.label, r.split, r.read()) for r in folder.records
        ]
        assert tar.passed_over == {".txt": 1, "hidden": 1}


def test_members_without_an_ending_and_hostile_ones(tmp_path: Path) -> None:
    data = entry(b"cat/noending", b"\xff\xd8\xff\xe0") + entry(b"../evil.jpg", b"x") + entry(b"cat/link", kind=b"2")
    (tmp_path / "x.tar").write_bytes(data + bytes(1024))
    catalogue = read_images(tmp_path / "x.tar")
    assert [record.key for record in catalogue.records] == ["cat/noending"]
    assert catalogue.passed_over == {"a path that leads upwards": 1, "a link": 1}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("photos.tar.gz", b"\x1f\x8b\x08", "compressed; unpack it with gunzip"),
        ("photos.tgz", b"\x1f\x8b\x08", "compressed; unpack it with gunzip"),
        ("photos.zip", b"PK\x03\x04", "compressed; unpack it with unzip"),
        ("photos.7z", b"7z\xbc\xaf\x27\x1c", "compressed; unpack it with 7z x"),
        ("photos.rar", b"Rar!\x1a\x07\0", "compressed; unpack it with unrar x"),
        ("photos.tar", b"text", "no tar archive, or a damaged one"),
        ("photos.tar", tar_bytes({"a.txt": b""}), r"no images found; .* \(skipped: 1 \.txt"),
    ],
)
def test_an_archive_that_is_not_read_says_why(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SalpipeError, match=words):
        read_images(tmp_path / name)
    if not name.endswith(".tar"):
        with pytest.raises(SalpipeError, match="a compressed archive; unpack it"):
            read_images(tmp_path)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (("train/extra/a/1.jpg", "train/extra/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"), "2 of 3 classes (a, b)"),
        (("train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "test/c/1.jpg"), "2 of 3 classes (b, c)"),
        (("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"), None),
        (("val/a/1.jpg", "test/b/1.jpg"), None),
        (("train/a/1.jpg", "test/1.jpg"), None),
    ],
)
def test_classes_without_training_images_are_noted(tmp_path: Path, files: tuple[str, ...], classes: str | None) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    untrained = [
        note.partition(": no training image")[0] for note in read_folder(tmp_path).notes if "no training" in note
    ]
    assert untrained == ([classes] if classes else [])
