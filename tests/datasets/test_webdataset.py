"""Layout `webdataset`: the library's conventions, and names of the copies of ImageNet on the Hub."""

import json
import os
import pickle
from pathlib import Path

import pytest

from saliency_pipeline.datasets.imagenet.synsets import imagenet_names
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.webdataset import LAYOUTS
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, Split
from tests.datasets.archives import END, HOSTILE, entry, tar_bytes, write_tar

LAYOUT = LAYOUTS[0]


def read(path: Path) -> Catalogue:
    return LAYOUT.read(path, ReadOptions())


def sample(key: str, label: int | None = None, /, **facts: object) -> dict[str, bytes]:
    """The files of one sample, in the order in which timm's copies have them."""
    files = {} if label is None else {f"{key}.cls": str(label).encode()}
    files[f"{key}.jpg"] = f"pixels of {key}".encode()
    return files | ({f"{key}.json": json.dumps(facts).encode()} if facts else {})


def shard(path: Path, *samples: dict[str, bytes]) -> Path:
    return write_tar(path, {name: data for files in samples for name, data in files.items()})


def labels(catalogue: Catalogue) -> dict[str, int]:
    return {record.key: record.label for record in catalogue.records}


def imagenet(folder: Path) -> Path:
    """The shards of timm/imagenet-1k-wds on a small scale."""
    shard(
        folder / "imagenet1k-train-0000.tar",
        sample("n01443537_2", 1, filename="n01443537/n01443537_2.JPEG", height=375, label=1, width=500),
        sample("n15075141_10", 999, filename="n15075141/n15075141_10.JPEG", height=375, label=999, width=500),
    )
    shard(folder / "imagenet1k-train-0001.tar", sample("n01443537_1", 1))
    shard(folder / "imagenet1k-validation-00.tar", sample("ILSVRC2012_val_00000001", 65))
    return folder


def test_imagenet_has_its_keys_classes_and_splits(tmp_path):
    assert LAYOUT.recognize(imagenet(tmp_path))
    catalogue = read(tmp_path)
    assert [(record.key, record.label, record.split) for record in catalogue.records] == [
        ("train/n01443537/n01443537_1.JPEG", 1, Split.TRAIN),
        ("train/n01443537/n01443537_2.JPEG", 1, Split.TRAIN),
        ("train/n15075141/n15075141_10.JPEG", 999, Split.TRAIN),
        ("val/ILSVRC2012_val_00000001.JPEG", 65, Split.VALIDATION),
    ]
    assert (catalogue.ids, catalogue.classes) == tuple(zip(*imagenet_names(), strict=True))
    assert (catalogue.layout, catalogue.root, catalogue.notes) == ("webdataset", str(tmp_path), ())


def test_images_are_read_where_they_lie(tmp_path):
    record = pickle.loads(pickle.dumps(read(imagenet(tmp_path)).records[1]))
    assert record.read() == b"pixels of n01443537_2"
    assert record.size() == len(record.read())
    assert record.path == str(tmp_path / "imagenet1k-train-0000.tar")


def test_records_of_a_shard_share_its_path(tmp_path):
    first, second = read(shard(tmp_path / "a-000.tar", sample("1", 0), sample("2", 0))).records
    assert first.path is second.path


def test_shards_may_lie_in_split_folders_or_be_one(tmp_path):
    shard(tmp_path / "train" / "0.tar", sample("s1", 0), sample("s2", 1))
    shard(tmp_path / "test" / "0.tar", sample("s1", 1))
    assert LAYOUT.recognize(tmp_path)
    catalogue = read(tmp_path)
    assert [(record.key, record.label, record.split) for record in catalogue.records] == [
        ("test/0/s1.jpg", 1, Split.TEST),
        ("train/0/s1.jpg", 0, Split.TRAIN),
        ("train/0/s2.jpg", 1, Split.TRAIN),
    ]
    assert LAYOUT.recognize(tmp_path / "train" / "0.tar")
    assert labels(read(tmp_path / "train" / "0.tar")) == {"0/s1.jpg": 0, "0/s2.jpg": 1}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("imagenet1k-train-0000.tar", Split.TRAIN),
        ("imagenet_val-000000-val.tar", Split.VALIDATION),
        ("valid_3.tar", Split.VALIDATION),
        ("set.Validation.7.tar", Split.VALIDATION),
        ("x-test-1.tar", Split.TEST),
        ("trains-0.tar", Split.NONE),
        ("00012.tar", Split.NONE),
    ],
)
def test_the_split_is_a_word_of_the_name(tmp_path, name, split):
    assert read(shard(tmp_path / name, sample("a", 0))).records[0].split is split


def test_the_key_ends_at_the_first_dot_of_the_last_part(tmp_path):
    files = {"v1.0/a.jpg": b"1", "v1.0/a.cls": b"1", "v1.0/b.PNG": b"2", "v1.0/b.cls": b"0", "b.seg.png": b"mask"}
    catalogue = read(shard(tmp_path / "x-0.tar", files))
    assert labels(catalogue) == {"x-0/v1.0/a.jpg": 1, "x-0/v1.0/b.PNG": 0}
    part = "a picture that its dots make a part of a sample; one with dots in its key needs a .cls or .json of its own"
    assert catalogue.notes == (f"x-0.tar: b.seg.png: {part}",)


def test_labels_and_names_may_come_from_json(tmp_path):
    catalogue = read(
        shard(
            tmp_path / "s-0.tar",
            sample("000", filename="n01443537/n01443537_7.JPEG", label=1),
            sample("001", 0, filename="n01440764_3.JPEG", label=17),  # .cls is the label, .json tells of it
        )
    )
    assert labels(catalogue) == {"train/n01440764/n01440764_3.JPEG": 0, "train/n01443537/n01443537_7.JPEG": 1}


# what the numbers mean


def test_numbers_without_names_are_compact_and_in_order(tmp_path):
    catalogue = read(shard(tmp_path / "x-0.tar", sample("a", 100), sample("b", 7), sample("c", 20), sample("d", 7)))
    assert catalogue.classes == ("7", "20", "100")
    assert labels(catalogue) == {"x-0/a.jpg": 2, "x-0/b.jpg": 0, "x-0/c.jpg": 1, "x-0/d.jpg": 0}
    assert catalogue.ids == ()


@pytest.mark.parametrize("file", ["classnames.txt", "classes.txt"])
def test_names_lie_beside_the_shards(tmp_path, file):
    shard(tmp_path / "x-0.tar", sample("a", 2), sample("b", 0))
    (tmp_path / file).write_text("red fox\narctic fox\n  fennec \n")
    assert read(tmp_path).classes == read(tmp_path / "x-0.tar").classes == ("red fox", "arctic fox", "fennec")
    assert labels(read(tmp_path)) == {"x-0/a.jpg": 2, "x-0/b.jpg": 0}


def test_names_that_are_wordnet_ids_are_put_in_order(tmp_path):
    shard(tmp_path / "x-0.tar", sample("a", 0), sample("b", 1))
    (tmp_path / "classes.txt").write_text("n01443537\nn01440764\n")
    catalogue = read(tmp_path)
    assert (catalogue.ids, catalogue.classes) == (("n01440764", "n01443537"), ("tench", "goldfish"))
    assert labels(catalogue) == {"x-0/a.jpg": 1, "x-0/b.jpg": 0}
    shard(tmp_path / "x-1.tar", sample("n01484850_1", 0))
    with pytest.raises(SalpipeError, match=r"labeled 0, but n01484850 is no class in .*classes\.txt; relabel"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one\n", r"classes\.txt: names 1 classes, but there is a label 2; complete it"),
        ("one\n\nthree\n", r"classes\.txt:2: blank"),
        ("x" * 100_000, r"classes\.txt:1: longer than"),
    ],
)
def test_names_that_do_not_fit_are_an_error(tmp_path, text, reason):
    shard(tmp_path / "x-0.tar", sample("a", 2))
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


@pytest.mark.parametrize("name", ["imagenet1k-train-0000.tar", "imagenet-train-000000.tar", "imagenet_val_1.tar"])
def test_a_name_alone_makes_imagenet_where_labels_fit(tmp_path, name):
    assert len(read(shard(tmp_path / name, sample("0", 7))).ids) == 1000
    assert read(shard(tmp_path / name, sample("0", 1000))).ids == ()


@pytest.mark.parametrize("name", ["imagenette-0.tar", "imagenet-100-train-0.tar", "imagenet22k-train-0.tar", "x-0.tar"])
def test_other_names_make_none(tmp_path, name):
    assert read(shard(tmp_path / name, sample("0", 7))).classes == ("7",)


@pytest.mark.parametrize("name", ["imagenet-train-000.tar", "shard-000.tar"])
def test_ids_and_labels_that_contradict_are_an_error_that_names_the_image(tmp_path, name):
    shard(tmp_path / name, sample("n01440764_1", 449), sample("n01443537_1", 442))  # as ILSVRC's own ids have it
    with pytest.raises(
        SalpipeError, match=rf"{name}: n01443537_1\.jpg: labeled 442, but n01443537 is class 1 in ImageNet"
    ):
        read(tmp_path)


def test_one_label_for_two_ids_is_an_error_that_names_both(tmp_path):
    shard(tmp_path / "a-000.tar", sample("n01440764_1", 0))
    shard(tmp_path / "a-001.tar", sample("n01443537_1", 0))
    reason = r"a-001\.tar: n01443537_1\.jpg: labeled 0, which is n01440764 in a-000\.tar: n01440764_1\.jpg; relabel"
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


def test_two_labels_for_one_id_are_an_error(tmp_path):
    with pytest.raises(SalpipeError, match=r"n99999999_1\.jpg: labeled 0, but n99999999 is class 1 in other images"):
        read(shard(tmp_path / "a-000.tar", sample("n99999999_1", 0), sample("n99999999_2", 1)))


def test_a_part_of_imagenet_numbered_anew_has_its_own_classes(tmp_path):
    catalogue = read(shard(tmp_path / "imagenet-100-train-0.tar", sample("n01443537_1", 0), sample("n01484850_1", 1)))
    assert (catalogue.ids, catalogue.classes) == (("n01443537", "n01484850"), ("goldfish", "great white shark"))
    assert list(labels(catalogue).values()) == [0, 1]


def test_other_classes_of_wordnet_are_put_in_order(tmp_path):
    catalogue = read(shard(tmp_path / "imagenet22k-train-0.tar", sample("n01443537_1", 9), sample("n00004475_1", 21)))
    assert catalogue.ids == ("n00004475", "n01443537")
    assert labels(catalogue) == {"train/n00004475/n00004475_1.JPEG": 0, "train/n01443537/n01443537_1.JPEG": 1}


# what is missing or wrong


def test_without_any_label_images_are_unlabeled_and_nothing_is_amiss(tmp_path):
    shard(tmp_path / "test-000.tar", sample("a"), sample("b", -1))
    catalogue = read(tmp_path)
    assert labels(catalogue) == {"test-000/a.jpg": -1, "test-000/b.jpg": -1}
    assert catalogue.classes == ()
    assert LAYOUT.recognize(tmp_path)


def test_one_without_a_label_among_others_is_noted(tmp_path):
    catalogue = read(shard(tmp_path / "a-0.tar", sample("a", 0), sample("b"), sample("c", 3)))
    assert labels(catalogue) == {"a-0/a.jpg": 0, "a-0/b.jpg": -1, "a-0/c.jpg": 1}
    assert catalogue.notes == ("a-0.tar: b.jpg: a sample without a label",)


@pytest.mark.parametrize("text", [b"cat", b"", b"1.0", b"9" * 70, b"1" * 10, "٣".encode(), b" " * 2**21])
def test_a_label_that_is_no_number_is_noted(tmp_path, text):
    catalogue = read(shard(tmp_path / "a-0.tar", {"a.jpg": b"1", "a.cls": text}, sample("b", 5)))
    assert labels(catalogue) == {"a-0/a.jpg": -1, "a-0/b.jpg": 0}
    assert "a-0.tar: a.cls: no number of a class" in catalogue.notes


@pytest.mark.parametrize(
    "text", [b"[", b"[1]", b"[" * 100_000, b"\xff", b'{"label": 1e5, "filename": 3}', b" " * 2**21]
)
def test_hostile_json_costs_one_label(tmp_path, text):
    catalogue = read(shard(tmp_path / "a-0.tar", {"a.jpg": b"1", "a.json": text}, sample("b", 5)))
    assert labels(catalogue) == {"a-0/a.jpg": -1, "a-0/b.jpg": 0}
    assert catalogue.notes


def test_the_same_image_in_two_shards_is_noted_and_the_first_counts(tmp_path):
    shard(tmp_path / "a-000.tar", sample("n01440764_1", 0))
    shard(tmp_path / "a-001.tar", sample("n01440764_1", 0), sample("n01443537_1", 1))
    catalogue = read(tmp_path)
    assert [os.path.basename(record.path) for record in catalogue.records] == ["a-000.tar", "a-001.tar"]
    assert catalogue.notes == ("train/n01440764/n01440764_1.JPEG: an image met before",)


def test_the_second_image_of_a_sample_is_noted(tmp_path):
    catalogue = read(shard(tmp_path / "a-0.tar", {"a.jpg": b"1", "a.png": b"2", "a.cls": b"0"}))
    assert labels(catalogue) == {"a-0/a.jpg": 0}
    assert catalogue.notes == ("a-0.tar: a.png: the second image of a sample",)


def test_hostile_members_are_noted(tmp_path):
    data = b"".join(HOSTILE.values()) + entry(b"a.jpg", b"1") + entry(b"a.cls", b"0") + END
    (tmp_path / "a-0.tar").write_bytes(data)
    catalogue = read(tmp_path)
    assert labels(catalogue) == {"a-0/a.jpg": 0}
    assert all(any(reason in note for note in catalogue.notes) for reason in HOSTILE)


def test_a_shard_cut_short_is_used_and_noted(tmp_path):
    whole = tar_bytes(sample("a", 0) | sample("b", 1))
    (tmp_path / "a-0.tar").write_bytes(whole[:2600])
    catalogue = read(tmp_path)
    assert labels(catalogue) == {"a-0/a.jpg": 0}
    assert catalogue.notes == (
        "a-0.tar: has no end mark; where it was cut short, members are missing",
        "a-0.tar: b.cls: a sample without an image",
    )


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, r"no shards \(\*\.tar\); give a folder of WebDataset shards"),
        ({"a-0.tar": END}, "no images in its shards; give"),
        ({"a-0.tar": b"<html>not found</html>"}, r"a-0\.tar: no tar archive, or a damaged one; download it again"),
        ({"a-0.tar": b"\x1f\x8b\x08"}, r"a-0\.tar: compressed; unpack it with gunzip"),
    ],
)
def test_what_is_missing_is_named(tmp_path, files, reason):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


def test_a_damaged_shard_is_recognized_so_that_it_can_be_named(tmp_path):
    (tmp_path / "imagenet1k-train-0000.tar").write_bytes(b"<html>")
    assert LAYOUT.recognize(tmp_path)


@pytest.mark.parametrize("damaged", [b"", b"<html>"])
def test_a_damaged_shard_does_not_hide_the_others(tmp_path, damaged):
    shard(tmp_path / "shard-0.tar", sample("a", 0))
    (tmp_path / "empty.tar").write_bytes(damaged)
    with pytest.raises(SalpipeError, match=r"empty\.tar: no tar archive, or a damaged one; download it again"):
        read_images(tmp_path)


# what is none


@pytest.mark.parametrize(
    "files",
    [
        {"cat/1.jpg": b"1", "dog/1.jpg": b"2"},
        {"1.jpg": b"1", "1.cls": b"0"},
        {"cat/1.jpg": b"1", "backup-1.tar": tar_bytes({"cat/1.jpg": b"1"})},
        {"ILSVRC2012_img_train.tar": tar_bytes({"n01440764.tar": tar_bytes({"n01440764_1.JPEG": b"1"})})},
        {"ILSVRC2012_img_val.tar": tar_bytes({"ILSVRC2012_val_00000001.JPEG": b"1"})},
        {"n01440764.tar": tar_bytes({"n01440764_1.JPEG": b"1"})},
        {"pictures.tar": tar_bytes({"1.jpg": b"1"})},
        {"texts-0.tar": tar_bytes({"1.txt": b"1", "1.cls": b"1"})},
        {"train-00000-of-00001.parquet": b"PAR1"},
        {},
    ],
)
def test_other_layouts_are_not_recognized(tmp_path, files):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        assert not LAYOUT.recognize(tmp_path / name)
    assert not LAYOUT.recognize(tmp_path)


@pytest.mark.parametrize(
    ("images", "name", "files"),
    [
        (["cat/1.jpg", "dog/1.jpg"], "export.tar", sample("a", 0, size=1)),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "archive-01.tar", sample("cat/1")),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "train/2.tar", sample("a", 0)),
        (["1.jpg", "2.jpg"], "photos-2020.tar", sample("1")),
    ],
)
def test_archives_beside_images_do_not_take_their_place(tmp_path, images, name, files):
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    shard(tmp_path / name, files)
    catalogue = read_images(tmp_path)
    assert (catalogue.layout, len(catalogue)) == ("folders", 2)


def test_an_archive_under_imagenets_own_name_is_left_to_its_reader(tmp_path):
    path = shard(tmp_path / "ILSVRC2012_img_val.tar", sample("a", 0))
    assert not LAYOUT.recognize(path)


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "folder"])
def test_a_shard_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    shard(tmp_path / "a-000000.tar", sample("1", 0))
    path = tmp_path / "a-000001.tar"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(SalpipeError, match=r"a-000001\.tar: .*; (give a regular file|check the path)"):
        read(tmp_path)


def test_other_files_beside_the_shards_may_be_anything(tmp_path: Path) -> None:
    shard(tmp_path / "a-000000.tar", sample("1", 0))
    (tmp_path / "notes.txt").symlink_to("nowhere")
    assert len(read(tmp_path).records) == 1
