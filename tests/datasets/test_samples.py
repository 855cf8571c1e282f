"""Names of ImageNet's images, and equal catalogues of shards and tables of the same images."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.datasets import parquet, webdataset
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.samples import Original, original, split_of
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Split
from tests.datasets.archives import write_tar

TRAIN = Original("train/n01440764/n01440764_10026.JPEG", "n01440764")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n01440764_10026", TRAIN),
        ("n01440764_10026.JPEG", TRAIN),
        ("n01440764/n01440764_10026.jpg", TRAIN),
        ("a.b/n01440764_10026_n01440764.JPEG", TRAIN),
        ("ILSVRC2012_val_00000001.JPEG", Original("val/ILSVRC2012_val_00000001.JPEG", None)),
        ("x/ILSVRC2012_val_00000001.JPEG", Original("val/ILSVRC2012_val_00000001.JPEG", None)),
        ("val/n01751748/ILSVRC2012_val_00000001.JPEG", Original("val/ILSVRC2012_val_00000001.JPEG", "n01751748")),
        ("n01751748_ILSVRC2012_val_00000001.jpg", Original("val/ILSVRC2012_val_00000001.JPEG", "n01751748")),
        ("ILSVRC2012_val_00000001_n01751748.JPEG", Original("val/ILSVRC2012_val_00000001.JPEG", "n01751748")),
        ("ILSVRC2012_test_00000009.JPEG", Original("test/ILSVRC2012_test_00000009.JPEG", None)),
        ("n01440764_10026_n01443537.JPEG", None),  # two classes
        ("n01440764_10026.JPEG/1.jpg", None),
        ("n0144076_10026.JPEG", None),
        ("n01440764_x.JPEG", None),
        ("ILSVRC2012_val_1.JPEG", None),
        ("n01440764_1.JPEG\n", Original("train/n01440764/n01440764_1.JPEG", "n01440764")),
        ("", None),
    ],
)
def test_names_mean_images(name, expected):
    assert original(name) == expected


@given(st.text("n0123456789_/.\nILSVRCvalteTST", max_size=60))
def test_what_a_name_means_is_safe_to_be_a_key(name):
    if image := original(name):
        assert image.key.startswith(("train/n", "val/ILSVRC2012_val_", "test/ILSVRC2012_test_"))
        assert image.key.isprintable()
        assert "." not in image.key[:-5]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00257.parquet", Split.TRAIN),
        ("validation-00000-of-00014.parquet", Split.VALIDATION),
        ("test-00000-of-00028-abc.parquet", Split.TEST),
        ("0000.parquet", Split.NONE),
    ],
)
def test_the_split_is_a_word(name, split):
    assert split_of(name) is split


def test_shards_and_tables_of_the_same_images_are_the_same_data_set(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    images = {"n01443537_2": 1, "n01440764_10": 0, "n15075141_3": 999, "n01440764_9": 0}
    files = {}
    for name, label in images.items():
        files |= {f"{name}.jpg": name.encode(), f"{name}.cls": b"%d\n" % label}
    write_tar(tmp_path / "shards" / "imagenet1k-train-0000.tar", files)
    rows = [{"bytes": name.encode(), "path": f"{name}_{name[:9]}.JPEG"} for name in images]
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"image": rows, "label": list(images.values())}), tmp_path / "tables" / "train.parquet")

    shards = webdataset.LAYOUTS[0].read(tmp_path / "shards", ReadOptions())
    tables = parquet.LAYOUTS[0].read(tmp_path / "tables", ReadOptions())
    assert (shards.classes, shards.ids) == (tables.classes, tables.ids)
    for one, other in zip(shards.records, tables.records, strict=True):
        assert (one.key, one.label, one.split, one.read()) == (other.key, other.label, other.split, other.read())
    assert [record.label for record in shards.records] == [0, 0, 1, 999]


def test_labels_that_are_of_no_use_are_noted_once_for_each_reason(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for number, (ending, label) in enumerate(
        [("json", b'{"label": "cat"}'), ("json", b'{"label": 1.5}'), ("cls", b"-1"), ("cls", b"-1"), ("cls", b"-7")]
    ):
        files |= {f"{number}.jpg": b"", f"{number}.{ending}": label}
    catalogue = read_images(write_tar(tmp_path / "x-0.tar", files), "webdataset")
    assert {record.label for record in catalogue.records} == {-1}
    assert catalogue.notes[-2:] == (
        "x-0.tar: 0.json and 1 more: label is no number, so the image is unlabeled",
        "x-0.tar: 2.jpg and 2 more: label is a negative number, so the image is unlabeled",
    )


def test_why_packed_data_sets_hold_no_images_is_explained(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x-0.tar", {"0.txt": b"", "0.cls": b"1"})
    with pytest.raises(SalpipeError, match=r"no images in its shards \(x-0\.tar: 0\.cls: a sample without an image"):
        read_images(tar, "webdataset")


def test_rows_without_bytes_or_labels_are_noted(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "x.parquet"
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": b"1"}, {"bytes": b"2"}, {"bytes": b"3"}]
    pq.write_table(pa.table({"image": pa.array(images, struct), "label": pa.array([-1, None, -1], pa.int64())}), table)
    assert read_images(table).notes == (
        "x.parquet: 0 and 1 more: label is a negative number, so the image is unlabeled",
        "x.parquet: 1: label is null, so the image is unlabeled",
    )
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "1.jpg"}], struct)}), table)
    with pytest.raises(SalpipeError, match=r"no images in its tables \(x\.parquet: row 0: the path of an image, but n"):
        read_images(table)
