"""Trees of PubFig, its Kaggle copy and PubFig83: recognition and reading."""

import os
from pathlib import Path

import pytest

from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.pubfig import LAYOUTS
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, Split

PUBFIG, KAGGLE, PUBFIG83 = LAYOUTS
NOTHING = (False, False, False)


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_list(path: Path, *rows: tuple[str, int, str]) -> Path:
    """Rows of (person, number, rect)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{person}\t{number}\thttp://host/\t{rect}\t{'0' * 32}" for person, number, rect in rows)
    path.write_text("# PubFig\n#\tperson\timagenum\turl\trect\tmd5sum\n" + "\n".join(lines))
    return path


def read(layout: Layout, root: Path, **options: object) -> Catalogue:
    return layout.read(root, ReadOptions(**options))


def recognized(root: Path) -> tuple[bool, ...]:
    return tuple(layout.recognize(root) for layout in LAYOUTS)


def labeled(catalogue: Catalogue) -> dict[str, str]:
    return {record.key: catalogue.classes[record.label] for record in catalogue.records}


def boxes(catalogue: Catalogue) -> dict[str, object]:
    return {record.key: record.box for record in catalogue.records}


ROWS = (("Brad Pitt", 2, "10,20,50,40"), ("Brad Pitt", 10, "-2,0,8,10"), ("Shakira", 1, "1,1,9,9"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = make(tmp_path / "tree", "Brad_Pitt/2.jpg", "Brad_Pitt/10.PNG", "Shakira/1.jpg")
    write_list(root / "dev_urls.txt", *ROWS)
    return root


def test_links_in_a_circle_and_folders_of_the_system_are_skipped(tmp_path):
    root = make(tmp_path / "CelebDataProcessed", "Brad Pitt/1.jpg", "__MACOSX/1.jpg", "@eaDir/1.jpg")
    (root / "circle").symlink_to("circle")
    (root / "Brad Pitt" / "2.jpg").symlink_to("2.jpg")
    assert recognized(root) == (False, True, False)
    assert labeled(read(KAGGLE, root)) == {"Brad Pitt/1.jpg": "Brad Pitt", "Brad Pitt/2.jpg": "Brad Pitt"}
    plain = make(tmp_path / "plain", "cat/1.jpg")
    (plain / "circle").symlink_to("circle")
    assert recognized(plain) == NOTHING


# PubFig


def test_a_tree_with_its_list(tree):
    assert recognized(tree) == (True, False, False)
    catalogue = read(PUBFIG, tree)
    assert (catalogue.layout, catalogue.root, catalogue.notes) == ("pubfig", str(tree), ())
    assert catalogue.classes == ("Brad Pitt", "Shakira")
    assert labeled(catalogue) == {
        "Brad Pitt/2.jpg": "Brad Pitt",
        "Brad Pitt/10.PNG": "Brad Pitt",
        "Shakira/1.jpg": "Shakira",
    }
    assert [record.key for record in catalogue.records] == ["Brad Pitt/2.jpg", "Brad Pitt/10.PNG", "Shakira/1.jpg"]
    assert boxes(catalogue) == {
        "Brad Pitt/2.jpg": (10, 20, 50, 40),
        "Brad Pitt/10.PNG": (-2, 0, 8, 10),
        "Shakira/1.jpg": (1, 1, 9, 9),
    }
    assert catalogue.records[0].path == str(tree / "Brad_Pitt" / "2.jpg")
    assert all(record.split is Split.NONE for record in catalogue.records)


def test_spaces_and_underscores_are_the_same_images(tree):
    underscores = read(PUBFIG, tree)
    (tree / "Brad_Pitt").rename(tree / "Brad Pitt")
    spaces = read(PUBFIG, tree)
    assert boxes(spaces) == boxes(underscores)
    assert labeled(spaces) == labeled(underscores)


def test_margins_are_fractions_of_the_box(tree):
    assert boxes(read(PUBFIG, tree, margin=0.25))["Brad Pitt/2.jpg"] == (0, 15, 60, 45)
    assert boxes(read(PUBFIG, tree, margin=1.0))["Brad Pitt/10.PNG"] == (-12, -10, 18, 20)


def test_without_crop_there_are_no_boxes(tree):
    assert set(boxes(read(PUBFIG, tree, crop=False, margin=0.5)).values()) == {None}


def test_a_list_may_be_named_or_lie_above(tree, tmp_path):
    whole = boxes(read(PUBFIG, tree))
    elsewhere = (tree / "dev_urls.txt").rename(tmp_path / "elsewhere.txt")
    assert recognized(tree) == NOTHING
    assert boxes(read(PUBFIG, tree, list=elsewhere)) == whole
    elsewhere.rename(tmp_path / "eval_urls.txt")
    assert recognized(tree) == (True, False, False)
    assert boxes(read(PUBFIG, tree)) == whole


def test_a_list_above_claims_only_folders_of_its_people(tmp_path):
    write_list(tmp_path / "dev_urls.txt", *ROWS)
    assert recognized(make(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg", "Shakira/1.jpg")) == NOTHING


def test_development_and_evaluation_list_together(tree):
    make(tree, "Tom Hanks/3.jpg")
    write_list(tree / "eval_urls.txt", ("Tom Hanks", 3, "1,2,3,4"))
    catalogue = read(PUBFIG, tree)
    assert catalogue.classes == ("Brad Pitt", "Shakira", "Tom Hanks")
    assert boxes(catalogue)["Tom Hanks/3.jpg"] == (1, 2, 3, 4)


def test_people_files_name_the_classes_where_there_is_no_list(tree):
    (tree / "dev_urls.txt").unlink()
    (tree / "dev_people.txt").write_text("# PubFig\nBrad Pitt\nShakira")
    make(tree, "thumbnails/1.jpg")
    assert recognized(tree) == (True, False, False)
    catalogue = read(PUBFIG, tree)
    assert catalogue.classes == ("Brad Pitt", "Shakira")
    assert set(boxes(catalogue).values()) == {None}
    assert catalogue.notes == ("thumbnails/1.jpg: its folder is nobody's in the list",)


def test_what_the_list_does_not_name_is_skipped(tree):
    make(tree, "Brad_Pitt/3.jpg", "Brad_Pitt/face.jpg", "Brad_Pitt/2.png", "Brad Pitt/2.jpg", "Nobody/1.jpg")
    make(tree, "Brad_Pitt/notes.txt", "Brad_Pitt/.hidden.jpg", ".cache/1.jpg", "loose.jpg", "Brad_Pitt/deep/2.jpg")
    catalogue = read(PUBFIG, tree)
    assert sorted(boxes(catalogue)) == ["Brad Pitt/10.PNG", "Brad Pitt/2.jpg", "Shakira/1.jpg"]
    assert sorted(catalogue.notes) == [
        "Brad_Pitt/2.jpg: another file has this person's image of this number",
        "Brad_Pitt/2.png: another file has this person's image of this number",
        "Brad_Pitt/3.jpg: not in the list",
        "Brad_Pitt/face.jpg: its name is no image number",
        "Nobody/1.jpg: its folder is nobody's in the list",
        "loose.jpg: an image in nobody's folder",
        "skipped: 1 .txt (not read); 2 hidden, 1 folders within those of people",
    ]


def test_a_face_without_a_usable_rect_is_taken_whole_and_noted(tree):
    write_list(tree / "dev_urls.txt", ROWS[0], ("Brad Pitt", 10, "-9,-9,-1,-1"), ("Shakira", 1, "9,9,1,1"))
    catalogue = read(PUBFIG, tree, margin=0.5)
    assert boxes(catalogue)["Brad Pitt/10.PNG"] is None
    assert boxes(catalogue)["Shakira/1.jpg"] == (-3, -3, 13, 13)
    assert catalogue.notes == (
        "dev_urls.txt:4: its rect has no area within the image, which is taken whole",
        "dev_urls.txt:5: its rect's corners are in the wrong order, which was put right",
    )


def test_a_damaged_list_is_noted_and_used(tree):
    with (tree / "dev_urls.txt").open("a") as file:
        file.write("\nBrad Pitt\t11\thttp://ho")
    assert read(PUBFIG, tree).notes == ("dev_urls.txt:6: not 5 columns separated by tabs",)
    assert len(read(PUBFIG, tree)) == 3


def test_what_is_missing_is_named(tmp_path):
    plain = make(tmp_path / "plain", "cat/1.jpg")
    with pytest.raises(SalpipeError, match=r"plain: neither dev_urls\.txt nor eval_urls\.txt nor a list of people in"):
        read(PUBFIG, plain)
    with pytest.raises(SalpipeError, match=r"none\.txt: No such file or directory; check the path"):
        read(PUBFIG, plain, list=tmp_path / "none.txt")
    lists = tmp_path / "lists"
    command = f"salpipe fetch pubfig --list {write_list(lists / 'dev_urls.txt', *ROWS)}"
    with pytest.raises(
        SalpipeError, match=rf"lists: no images found; each person needs .*, as {command} -o {lists} makes them$"
    ):
        read(PUBFIG, lists)
    with pytest.raises(
        SalpipeError, match=r"found; --list makes it layout pubfig, .*; cat/1\.jpg: its folder is nobody's in the list"
    ):
        read(PUBFIG, plain, list=lists / "dev_urls.txt")


def test_links_are_followed_and_pipes_are_not_opened(tree, tmp_path):
    (tree / "Shakira" / "1.jpg").unlink()
    (tree / "Shakira" / "1.jpg").symlink_to(tmp_path / "nowhere")
    (tree / "Brad_Pitt").rename(tmp_path / "elsewhere")
    (tree / "Brad_Pitt").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    os.mkfifo(tmp_path / "elsewhere" / "3.jpg")
    assert sorted(boxes(read(PUBFIG, tree))) == ["Brad Pitt/10.PNG", "Brad Pitt/2.jpg", "Shakira/1.jpg"]


# Kaggle's copy


def test_kaggles_copy_is_read_from_its_folder_or_the_one_above(tmp_path):
    root = make(tmp_path, "CelebDataProcessed/Alex Rodriguez/1.jpg", "CelebDataProcessed/Ali Landry/1.jpg")
    for path in (root, root / "CelebDataProcessed"):
        assert recognized(path) == (False, True, False)
        catalogue = read(KAGGLE, path, margin=0.5)
        assert catalogue.layout == "pubfig-kaggle"
        assert labeled(catalogue) == {"Alex Rodriguez/1.jpg": "Alex Rodriguez", "Ali Landry/1.jpg": "Ali Landry"}
        assert set(boxes(catalogue).values()) == {None}


def test_beside_other_folders_kaggles_copy_is_one_of_them(tmp_path):
    make(tmp_path, "CelebDataProcessed/Alex Rodriguez/1.jpg", "cats/1.jpg")
    assert recognized(tmp_path) == (False, False, False)


# PubFig83


def people(count: int) -> list[str]:
    return [f"First{chr(97 + i % 26)} Last{i}" for i in range(count)]


def test_83_folders_of_numbers_are_pubfig83(tmp_path):
    names = people(83)
    root = make(tmp_path / "faces", *(f"{name}/{i}.jpg" for name in names for i in (1, 2)))
    assert recognized(root) == (False, False, True)
    catalogue = read(PUBFIG83, root)
    assert catalogue.layout == "pubfig83"
    assert (len(catalogue), len(catalogue.classes)) == (166, 83)
    assert f"{names[0]}/2.jpg" in boxes(catalogue)


def test_its_splits_have_the_same_keys(tmp_path):
    names = people(83)
    root = make(tmp_path, *(f"train/{name}/1.jpg" for name in names), *(f"test/{name}/2.jpg" for name in names))
    assert recognized(root) == (False, False, True)
    catalogue = read(PUBFIG83, root)
    assert {record.key.partition("/")[2]: record.split for record in catalogue.records} == {
        "1.jpg": Split.TRAIN,
        "2.jpg": Split.TEST,
    }
    assert len(catalogue.classes) == 83
    make(root, "samples/1.jpg")
    assert recognized(root) == (False, False, True)
    beside = read(PUBFIG83, root)
    assert (beside.classes, beside.records) == (catalogue.classes, catalogue.records)
    assert beside.notes == ("samples: passed over beside test and train; move the people in it into one of them",)


def test_splits_that_both_number_from_1_keep_their_images_apart(tmp_path):
    root = make(tmp_path / "PubFig83", "train/Ali Landry/1.jpg", "test/Ali_Landry/1.jpg")
    assert recognized(root) == (False, False, True)
    catalogue = read(PUBFIG83, root)
    assert [(record.key, record.split) for record in catalogue.records] == [
        ("test/Ali Landry/1.jpg", Split.TEST),
        ("train/Ali Landry/1.jpg", Split.TRAIN),
    ]
    assert catalogue.classes == ("Ali Landry",)


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}/1.jpg" for name in people(82)],
        [f"{name}/photo.jpg" for name in people(83)],
        [f"{name}/1.txt" for name in people(83)],
        [f"n{i:08d}/1.jpg" for i in range(83)],
        [f"{name}/1.jpg" for name in people(1100)],
        ["cat/1.jpg", "dog/2.jpg"],
        ["train/cat/1.jpg", "val/cat/1.jpg"],
        ["1.jpg"],
    ],
    ids=["82", "names", "texts", "one word", "crowd", "pets", "splits", "flat"],
)
def test_ordinary_folders_are_not_claimed(tmp_path, names):
    root = make(tmp_path / "root", *names)
    assert recognized(root) == NOTHING
    assert recognized(root / names[0]) == NOTHING  # nor files


def test_a_folder_that_is_named_is_read_all_the_same(tmp_path):
    root = make(tmp_path, "Ali Landry/1.jpg", "Ali_Landry/1.jpg", "_/x.jpg", os.fsdecode(b"caf\xe9/1.jpg"))
    catalogue = read(PUBFIG83, root)
    assert labeled(catalogue) == {"Ali Landry/1.jpg": "Ali Landry", "_/x.jpg": "_", r"caf\xe9/1.jpg": r"caf\xe9"}
    assert catalogue.notes == ("Ali_Landry/1.jpg: another folder has this person's image of this name",)
