"""Layout `parquet`: folders of tables, and other parquet files."""

from pathlib import Path

import pytest

from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.parquet import LAYOUTS
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Split
from tests.datasets.test_parquet import imagenet, labels, pixels, read, write, write_table

pa = pytest.importorskip("pyarrow")

LAYOUT = LAYOUTS[0]


@pytest.mark.parametrize("images", [["cat/1.jpg", "dog/1.jpg"], ["train/cat/1.jpg", "val/cat/2.jpg"], ["1.jpg"]])
@pytest.mark.parametrize("table", ["features.parquet", "data/features.parquet", "runs/features.parquet"])
def test_other_tables_beside_images_do_not_take_their_place(tmp_path, images, table):
    for name in images:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_table(tmp_path / table, pa.table({"mean": [0.5]}))
    assert not LAYOUT.recognize(tmp_path)
    assert read_images(tmp_path).layout == "folders"


def test_pictures_of_a_readme_beside_tables_do_not_take_their_place(tmp_path):
    imagenet(tmp_path)
    (tmp_path / "banner.png").touch()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "examples.png").touch()
    assert LAYOUT.recognize(tmp_path)


@pytest.mark.parametrize("above", ["", "default/"])
def test_splits_are_folders_where_the_hub_has_converted_a_data_set(tmp_path, above):
    for split in ("train", "test"):
        write(tmp_path / above / split / "0000.parquet", [("a.jpg", 0)])
    catalogue = read_images(tmp_path)
    assert [(record.key, record.split) for record in catalogue.records] == [
        ("test/0000/0.jpg", Split.TEST),
        ("train/0000/0.jpg", Split.TRAIN),
    ]
    (record,) = read_images(tmp_path / above / "test").records
    assert (record.key, record.split) == ("test/0000/0.jpg", Split.TEST)


def test_a_configuration_lies_in_a_folder_of_its_own(tmp_path):
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", [("a.jpg", 0)])
    (record,) = read_images(tmp_path).records
    assert (record.key, record.split) == ("train-00000-of-00001/0.jpg", Split.TRAIN)
    write(tmp_path / "large" / "train" / "0000.parquet", [("a.jpg", 0)])
    with pytest.raises(SalpipeError, match=r"tables in several folders, large, plain_text; give one of them"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("columns", "notes"),
    [
        (["img"], ()),
        (["img", "labels"], ()),
        (
            ["img", "y", "z"],
            ("0.parquet, which has y, z: no column label, labels or fine_label, so its images are unlabeled",),
        ),
    ],
)
def test_columns_none_of_which_is_a_label_are_noted_once(tmp_path, columns, notes):
    values = {"img": pa.array([b"pixels"])} | {name: [1] for name in columns[1:]}
    for name in ("0.parquet", "1.parquet"):
        write_table(tmp_path / name, pa.table(values))
    assert read_images(tmp_path).notes == notes


def test_endings_of_tables_may_be_capitals(tmp_path: Path) -> None:
    write(tmp_path / "train.PARQUET", [("a.jpg", 1)])
    catalogue = read_images(tmp_path)
    assert (catalogue.layout, [record.key for record in catalogue.records]) == ("parquet", ["train/0.jpg"])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("2.jpg", 0), ("10.jpg", 0), ("1.PNG", 1)], ["train/cat/2.jpg", "train/cat/10.jpg", "train/dog/1.PNG"]),
        ([("1.jpg", 1), ("10.jpg", 0), ("2.jpg", 0)], ["train/cat/2.jpg", "train/cat/10.jpg", "train/dog/1.jpg"]),
        ([("1.jpg", 0), ("1.jpg", 1), ("2.jpg", 0)], ["train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg"]),
        ([(f"{number}.jpg", number % 2) for number in range(18)], None),
        ([("1.jpg", 0), ("1.jpg", 0)], None),
        ([("1.jpg", 0), ("2", 0)], None),
        ([("1.jpg", 0), (None, 0)], None),
        ([("1.jpg", None), ("2.jpg", 0)], None),
        ([("1.jpg", -1), ("2.jpg", 0)], None),
        ([("1.jpg", 0), ("../2.jpg", 0)], None),
        ([("1.jpg", 0), ("2\0.jpg", 0)], None),
        ([("1.jpg", 0), ("2" * 252 + ".jpg", 0)], None),
        ([("1.jpg", 0), ("n01440764_1.JPEG", 0)], None),
    ],
    ids=lambda case: None if case is None else "-".join(map(str, case))[:40],
)
def test_rows_nearly_in_the_order_of_a_folder_have_its_keys(tmp_path, rows, expected):
    catalogue = read(write(tmp_path / "train.parquet", rows, ["cat", "dog"]))
    keys = [record.key for record in catalogue.records]
    if expected is None:
        assert not any(key.startswith(("train/cat", "train/dog")) for key in keys)
    else:
        assert keys == expected
        order = [rows.index((name, ["cat", "dog"].index(kind))) for _, kind, name in (key.split("/") for key in keys)]
        assert [record.read() for record in catalogue.records] == [pixels(row) for row in order]


@pytest.mark.parametrize("name", ["c" * 256, "é" * 128, "\ud800", "a/b", "..", "\0"])
def test_names_that_no_folder_can_have_are_in_no_key(tmp_path, name):
    catalogue = read(write(tmp_path / "train.parquet", [("1.jpg", 0), ("2.jpg", 0)], [name]))
    assert [record.key for record in catalogue.records] == ["train/0.jpg", "train/1.jpg"]


def test_tables_have_the_keys_of_a_folder_of_splits(tmp_path):
    names = ["cat", "..", "a/b"]
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [("1.jpg", 0)], names)
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [("1.jpg", 0), ("3.jpg", 0)], names)
    second = write(tmp_path / "data" / "train-00001-of-00002.parquet", [("4.jpg", 0)], names)
    assert list(labels(read(tmp_path))) == ["test/cat/1.jpg", "train/cat/1.jpg", "train/cat/3.jpg", "train/cat/4.jpg"]
    for row in [("3.jpg", 0), ("5.jpg", 1), ("5.jpg", 2)]:
        write(second, [row], names)
        assert list(labels(read(tmp_path)))[-1] == "train-00001-of-00002/0.jpg"
