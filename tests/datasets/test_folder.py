"""Layout `folders`: images, keys, labels, splits and order."""

import inspect
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import SUFFIXES, key_part, natural
from saliency_pipeline.images.record import Catalogue, Split


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def labeled(catalogue: Catalogue) -> dict[str, str | None]:
    return {record.key: catalogue.classes[record.label] if record.label >= 0 else None for record in catalogue.records}


def keys(catalogue: Catalogue) -> list[str]:
    return [record.key for record in catalogue.records]


def test_each_first_level_folder_is_a_class_and_deeper_ones_belong_to_it(tmp_path):
    catalogue = read_folder(make(tmp_path, "cat/1.jpg", "cat/kitten/young/2.jpg", "dog/1.jpg"))
    assert catalogue.classes == ("cat", "dog")
    assert labeled(catalogue) == {"cat/1.jpg": "cat", "cat/kitten/young/2.jpg": "cat", "dog/1.jpg": "dog"}
    assert all(record.split is Split.NONE for record in catalogue.records)


def test_a_flat_folder_is_unlabeled(tmp_path):
    catalogue = read_folder(make(tmp_path, "b.jpg", "a.png"))
    assert catalogue.classes == ()
    assert labeled(catalogue) == {"a.png": None, "b.jpg": None}


def test_loose_images_beside_class_folders_are_unlabeled(tmp_path):
    assert labeled(read_folder(make(tmp_path, "a.jpg", "cat/1.jpg"))) == {"a.jpg": None, "cat/1.jpg": "cat"}


def test_records_say_where_their_bytes_are(tmp_path, monkeypatch):
    make(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "1.jpg").write_bytes(b"pixels")
    monkeypatch.chdir(tmp_path.parent)
    catalogue = read_folder(tmp_path.name)
    monkeypatch.chdir("/")
    assert catalogue.root == str(tmp_path)
    assert catalogue.records[0].path == str(tmp_path / "cat" / "1.jpg")
    assert catalogue.records[0].read() == b"pixels"


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_counts_in_any_case(tmp_path, suffix):
    make(tmp_path, f"a.{suffix}", f"b.{suffix.upper()}", f"c.{suffix.title()}", f"d.jpg.{suffix}x", f"e{suffix}")
    assert keys(read_folder(tmp_path)) == [f"a.{suffix}", f"b.{suffix.upper()}", f"c.{suffix.title()}"]


def test_hidden_and_system_files_are_skipped(tmp_path):
    make(tmp_path, "a/1.jpg", "a/.2.jpg", ".b/3.jpg", "a/._1.jpg", "@eaDir/1.jpg", "lost+found/1.jpg", "a/@eaDir/2.jpg")
    assert keys(read_folder(tmp_path)) == ["a/1.jpg"]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    make(tmp_path, "x.jpg/1.png")
    (tmp_path / "y.jpg").mkdir()
    assert labeled(read_folder(tmp_path)) == {"x.jpg/1.png": "x.jpg"}


def test_folders_without_images_are_no_classes(tmp_path):
    make(tmp_path, "cat/1.jpg", "notes/readme.txt")
    assert read_folder(tmp_path).classes == ("cat",)


def test_classes_and_splits_without_images_are_noted(tmp_path):
    make(tmp_path, "train/cat/deep/1.jpg", "val/cat/2.jpg", "train/cat/bare/notes.txt", "loose.txt", "docs/a.txt")
    for name in ("train/emu/young", "val/dog", "train/ant", "test/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "train" / "owl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train" / "list.txt").symlink_to(tmp_path / "loose.txt")
    catalogue = read_folder(tmp_path)
    assert catalogue.classes == ("cat",)
    assert catalogue.notes == (
        "test: a folder without images, left out",
        "train/ant: a folder without images, left out",
        "train/emu: a folder without images, left out",
        "val/dog: a folder without images, left out",
        "train/owl: a link to nowhere, left out",
        "skipped: 4 .txt (not read); 1 folders without images",
    )
    assert read_folder(tmp_path / "train").notes == (
        "ant: a folder without images, left out",
        "emu: a folder without images, left out",
        "owl: a link to nowhere, left out",
        "cat/deep: all images lie deeper than the folders that name the classes; --label-level 2 takes deeper ones",
        "skipped: 2 .txt (not read); 1 folders without images",
    )


# splits


def test_splits_are_recognized_in_any_case_and_share_their_classes(tmp_path):
    make(tmp_path, "Train/cat/1.jpg", "train2.txt", "VAL/dog/1.jpg", "test/cat/2.jpg", "validation/owl/1.jpg")
    catalogue = read_folder(make(tmp_path, "valid/owl/2.jpg", "notes/readme.txt", "loose.jpg"))
    assert catalogue.classes == ("cat", "dog", "owl")
    assert {record.key: record.split for record in catalogue.records} == {
        "Train/cat/1.jpg": Split.TRAIN,
        "VAL/dog/1.jpg": Split.VALIDATION,
        "test/cat/2.jpg": Split.TEST,
        "validation/owl/1.jpg": Split.VALIDATION,
        "valid/owl/2.jpg": Split.VALIDATION,
        "loose.jpg": Split.NONE,
    }
    assert labeled(catalogue)["test/cat/2.jpg"] == labeled(catalogue)["Train/cat/1.jpg"] == "cat"


@pytest.mark.parametrize(
    "names",
    [
        ["test/1.jpg", "train/1.jpg", "essay/1.jpg"],
        ["train/1.jpg", "bus/1.jpg"],
        ["train/steam/1.jpg", "bus/1.jpg"],
        ["test/unit/1.jpg", "dev/1.jpg", "essay/1.jpg"],
    ],
    ids=["train and test, flat", "train", "train in folders", "no train"],
)
def test_classes_called_like_splits_among_others_stay_classes_and_are_noted(tmp_path, names):
    catalogue = read_folder(make(tmp_path, *names))
    tops = sorted(name.partition("/")[0] for name in names)
    assert catalogue.classes == tuple(tops)
    assert {record.split for record in catalogue.records} == {Split.NONE}
    reason = "taken as a class, like the folders beside it; move those away if it is a part of the data set"
    assert catalogue.notes == tuple(f"{top}: {reason}" for top in tops if top not in ("essay", "bus"))


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train/cat/1.jpg", "validation/cat/1.jpg"], "train and validation"),
        (["train/1.jpg", "VAL/1.jpg"], "VAL and train"),
        (["train/cat/1.jpg", "test/1.jpg"], "test and train"),
        (["Training/cat/1.jpg", "Testing/cat/1.jpg", "dev/cat/1.jpg"], "Testing, Training and dev"),
    ],
)
def test_folders_beside_splits_are_skipped_with_a_note(tmp_path, names, parts):
    alone = read_folder(make(tmp_path, *names))
    assert (alone.notes, {record.split for record in alone.records} & {Split.NONE}) == ((), set())
    beside = read_folder(make(tmp_path, "samples/1.jpg", "docs/img/logo.png"))
    assert (beside.classes, beside.records) == (alone.classes, alone.records)
    reason = f"passed over beside {parts}; move its images into one of them, or call it train, val or test"
    counts = "skipped: 2 images beside the splits"
    assert beside.notes == (f"docs: {reason}", f"samples: {reason}", counts)


def test_flat_splits_are_unlabeled(tmp_path):
    catalogue = read_folder(make(tmp_path, "train/1.jpg", "test/2.jpg"))
    assert catalogue.classes == ()
    assert [record.split for record in catalogue.records] == [Split.TEST, Split.TRAIN]


def test_splits_below_the_first_level_are_ordinary_folders(tmp_path):
    catalogue = read_folder(make(tmp_path, "data/train/1.jpg"))
    assert labeled(catalogue) == {"data/train/1.jpg": "data"}
    assert catalogue.records[0].split is Split.NONE


# label level


def test_label_level_0_leaves_all_unlabeled_but_keeps_splits(tmp_path):
    catalogue = read_folder(make(tmp_path, "train/cat/1.jpg"), label_level=0)
    assert catalogue.classes == ()
    assert (catalogue.records[0].label, catalogue.records[0].split) == (-1, Split.TRAIN)


def test_label_level_2_names_classes_by_the_second_folder(tmp_path):
    make(tmp_path, "north/fox/1.jpg", "south/fox/1.jpg", "south/emu/wild/1.jpg", "south/1.jpg")
    catalogue = read_folder(tmp_path, label_level=2)
    assert catalogue.classes == ("emu", "fox")
    assert labeled(catalogue) == {
        "north/fox/1.jpg": "fox",
        "south/fox/1.jpg": "fox",
        "south/emu/wild/1.jpg": "emu",
        "south/1.jpg": None,
    }


def test_label_level_counts_below_the_split(tmp_path):
    catalogue = read_folder(make(tmp_path, "train/felidae/lynx/1.jpg", "val/felidae/puma/1.jpg"), label_level=2)
    assert catalogue.classes == ("lynx", "puma")


@pytest.mark.parametrize(
    ("names", "level", "reason"),
    [
        (["a/1.jpg"], 2, "label level 2 is too deep; the deepest images lie at level 1$"),
        (["1.jpg"], 2, "label level 2 is too deep; the deepest images lie at level 0$"),
        (
            ["train/a/1.jpg"],
            2,
            "label level 2 is too deep; the deepest images lie at level 1, counted below the splits",
        ),
        (["a/1.jpg"], -1, "label level -1: use 0"),
    ],
)
def test_a_label_level_that_is_not_there_is_an_error(tmp_path, names, level, reason):
    with pytest.raises(SalpipeError, match=reason):
        read_folder(make(tmp_path, *names), label_level=level)


# order


def test_order_is_natural(tmp_path):
    make(tmp_path, "c10/1.jpg", "c9/img10.jpg", "c9/img2.jpg", "c9/img02.jpg", "c9/a/1.jpg", "c9-b/1.jpg", "C1/1.jpg")
    catalogue = read_folder(tmp_path)
    assert keys(catalogue) == [
        "C1/1.jpg",
        "c9/a/1.jpg",
        "c9/img02.jpg",
        "c9/img2.jpg",
        "c9/img10.jpg",
        "c9-b/1.jpg",
        "c10/1.jpg",
    ]
    assert catalogue.classes == ("C1", "c9", "c9-b", "c10")


@given(st.lists(st.text("01290aZ-_ é²٣", min_size=1), unique=True), st.randoms())
def test_natural_order_is_total(names, random):
    shuffled = random.sample(names, len(names))
    assert sorted(names, key=natural) == sorted(shuffled, key=natural)
    assert len({natural(name) for name in names}) == len(names)


@given(st.integers(0, 10**200), st.integers(0, 10**200))
def test_natural_order_of_numbers_is_theirs(first, second):
    assert (natural(f"img{first}.jpg") < natural(f"img{second}.jpg")) == (first < second)


# names


def test_odd_names_keep_their_files_apart(tmp_path):
    odd = [b"caf\xe9.jpg", b"caf\\xe9.jpg", "café.jpg".encode(), b"two\nlines.jpg", b"back\\slash.jpg", b"\xff\xfe.jpg"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    records = read_folder(tmp_path).records
    assert {record.key: record.read() for record in records} == {
        r"caf\xe9.jpg": odd[0],
        r"caf\\xe9.jpg": odd[1],
        "café.jpg": odd[2],
        "two\nlines.jpg": odd[3],
        r"back\\slash.jpg": odd[4],
        r"\xff\xfe.jpg": odd[5],
    }
    assert all(record.key.encode() for record in records)


def test_a_folder_name_that_is_not_utf8_is_a_class(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    catalogue = read_folder(make(tmp_path, f"{folder.name}/1.jpg"))
    assert catalogue.classes == (r"\xe9t\xe9",)
    assert catalogue.records[0].read() == b""


@given(st.lists(st.binary(min_size=1), unique=True))
def test_different_names_have_different_keys(names):
    parts = {key_part(os.fsdecode(name)) for name in names}
    assert len(parts) == len(names)
    assert all(part.encode() for part in parts)


# links and things that are no files


def test_links_are_followed_and_loops_survived(tmp_path):
    outside = make(tmp_path / "outside", "deep/1.jpg", "2.jpg")
    root = make(tmp_path / "root", "real/1.jpg")
    (root / "linked").symlink_to(outside, target_is_directory=True)
    (root / "real" / "up").symlink_to(root, target_is_directory=True)
    (outside / "deep" / "back").symlink_to(outside, target_is_directory=True)
    (root / "real" / "copy.jpg").symlink_to(outside / "2.jpg")
    assert keys(read_folder(root)) == ["linked/2.jpg", "linked/deep/1.jpg", "real/1.jpg", "real/copy.jpg"]


def test_a_folder_reached_by_two_ways_is_read_twice(tmp_path):
    root = make(tmp_path, "train/cat/1.jpg")
    (root / "test").symlink_to(root / "train", target_is_directory=True)
    assert keys(read_folder(root)) == ["test/cat/1.jpg", "train/cat/1.jpg"]


def test_dangling_links_are_records_that_cannot_be_read(tmp_path):
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "no such file")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    records = read_folder(tmp_path).records
    assert [record.key for record in records] == ["itself.jpg", "nowhere.jpg"]
    for record in records:
        with pytest.raises(OSError, match=r"No such file|Too many levels"):
            record.read()


def test_pipes_and_sockets_are_skipped(tmp_path, monkeypatch):
    make(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert keys(read_folder(tmp_path)) == ["1.jpg"]


def test_a_deep_tree_needs_no_recursion(tmp_path):
    make(tmp_path, "a/" * 400 + "1.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        catalogue = read_folder(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert labeled(catalogue) == {"a/" * 400 + "1.jpg": "a"}


# errors


def test_a_single_image_is_a_catalogue_of_one(tmp_path):
    catalogue = read_folder(make(tmp_path, "a.JPG") / "a.JPG")
    assert [(record.key, record.path, record.label) for record in catalogue.records] == [
        ("a.JPG", str(tmp_path / "a.JPG"), -1)
    ]
    assert catalogue.classes == ()


def test_what_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(SalpipeError, match="nothing: no such folder; check the path"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(
        SalpipeError, match=r"no images found; they must end in .* \(skipped: 1 \.txt \(not read\); 1 hidden\)"
    ):
        read_folder(make(tmp_path, "a.txt", ".b.jpg"))
    with pytest.raises(SalpipeError, match=r"a\.txt: neither an image nor an archive of images; give"):
        read_folder(tmp_path / "a.txt")
    for name in ("shard-00000.h5", "dev_urls_truncated.txt"):
        reason = (
            f"{name}: a (shard that salpipe made of images; give the|list of PubFig, .* salpipe fetch pubfig --list)"
        )
        for path in (root := make(tmp_path / f"of {name}", "manifest.json", name), root / name):
            with pytest.raises(SalpipeError, match=reason):
                read_folder(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SalpipeError, match="pipe: Not a directory"):
        read_folder(tmp_path / "pipe")


def test_a_folder_that_cannot_be_read_is_named_not_skipped(tmp_path, monkeypatch):
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def refuse(path):  # not chmod: the superuser reads everything
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SalpipeError, match="b: Permission denied; check its permissions or move it"):
        read_folder(tmp_path)


def test_messages_are_one_line_whatever_the_path(tmp_path):
    with pytest.raises(SalpipeError) as caught:
        read_folder(tmp_path / "two\nlines")
    assert str(caught.value).isprintable()


def test_two_threads_read_the_same(tmp_path):
    make(tmp_path, *(f"c{index % 7}/{index}.jpg" for index in range(300)))
    catalogues: list[Catalogue] = []
    threads = [threading.Thread(target=lambda: catalogues.append(read_folder(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalogues[0] == catalogues[1]
    assert len(catalogues[0]) == 300
