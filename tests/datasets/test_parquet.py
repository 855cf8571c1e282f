"""Layout `parquet`: columns, labels, and reading of single images in any order and process."""

import builtins
import json
import os
import pickle
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.datasets import parquet, parquet_rows
from saliency_pipeline.datasets.imagenet.synsets import imagenet_names
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.parquet import LAYOUTS
from saliency_pipeline.datasets.parquet_rows import ParquetRecord
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, Split
from tests.datasets.archives import tar_bytes

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LAYOUT = LAYOUTS[0]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Row = tuple[str | None, int | None]


def pixels(row: int) -> bytes:
    return b"image %d " % row * (row + 5)


def write(path: Path, rows: Sequence[Row], names: object = None, *, group: int = 2, **options: Any) -> Path:
    """A table of the `datasets` library: a path and a label per row, with names of classes beside the schema."""
    images = [{"bytes": pixels(row), "path": name} for row, (name, _) in enumerate(rows)]
    table = pa.table({"image": pa.array(images, STRUCT), "label": pa.array([label for _, label in rows], pa.int64())})
    return write_table(path, table, names, row_group_size=group, **options)


def write_table(path: Path, table: Any, names: object = None, **options: Any) -> Path:
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def read(path: Path) -> Catalogue:
    return LAYOUT.read(path, ReadOptions())


def labels(catalogue: Catalogue) -> dict[str, int]:
    return {record.key: record.label for record in catalogue.records}


def imagenet(folder: Path) -> Path:
    """The imagenet-1k of the Hub on a small scale; its names of classes are not ours."""
    names = [f"{name}, and its synonyms" for _, name in imagenet_names()]
    train = [("n01443537_2_n01443537.JPEG", 1), ("n15075141_7_n15075141.JPEG", 999), ("n01443537_1_n01443537.JPEG", 1)]
    write(folder / "data" / "train-00000-of-00001.parquet", train, names)
    val = [("ILSVRC2012_val_00000001_n01751748.JPEG", 65)]
    write(folder / "data" / "validation-00000-of-00001.parquet", val, names)
    write(folder / "data" / "test-00000-of-00001.parquet", [("ILSVRC2012_test_00000009.JPEG", -1)], names)
    return folder


def test_imagenet_has_its_keys_classes_and_splits(tmp_path):
    assert LAYOUT.recognize(imagenet(tmp_path))
    catalogue = read(tmp_path)
    assert [(record.key, record.label, record.split) for record in catalogue.records] == [
        ("test/ILSVRC2012_test_00000009.JPEG", -1, Split.TEST),
        ("train/n01443537/n01443537_1.JPEG", 1, Split.TRAIN),
        ("train/n01443537/n01443537_2.JPEG", 1, Split.TRAIN),
        ("train/n15075141/n15075141_7.JPEG", 999, Split.TRAIN),
        ("val/ILSVRC2012_val_00000001.JPEG", 65, Split.VALIDATION),
    ]
    assert (catalogue.ids, catalogue.classes) == tuple(zip(*imagenet_names(), strict=True))
    assert (catalogue.layout, catalogue.root, catalogue.notes) == ("parquet", str(tmp_path), ())
    assert [record.read() for record in catalogue.records] == [pixels(row) for row in (0, 2, 0, 1, 0)]


def test_an_id_in_a_path_that_contradicts_the_label_names_file_and_row(tmp_path):
    names = [name for _, name in imagenet_names()]
    rows = [("n01440764_1_n01440764.JPEG", 0), ("n01443537_1_n01443537.JPEG", 442)]
    reason = r"train-0\.parquet: 1: labeled 442, but n01443537 is class 1 in ImageNet; relabel the data set"
    with pytest.raises(SalpipeError, match=reason):
        read(write(tmp_path / "train-0.parquet", rows, names))


def test_a_data_set_has_its_own_names(tmp_path):
    rows = [("photos/a.PNG", 2), (None, 0), ("b.txt", 2), ("../../evil.jpg", 0)]
    catalogue = read(write(tmp_path / "train.parquet", rows, ["red fox", "arctic fox", "fennec"]))
    assert catalogue.classes == ("red fox", "arctic fox", "fennec")
    assert labels(catalogue) == {"train/0.PNG": 2, "train/1": 0, "train/2": 2, "train/3.jpg": 0}
    assert catalogue.ids == ()


def test_names_of_one_kind_for_two_classes_are_numbered(tmp_path):
    rows: list[Row] = [("a.jpg", 0), ("b.jpg", 1)]
    assert read(write(tmp_path / "x.parquet", rows, ["crane", "crane"])).classes == ("crane (0)", "crane (1)")


@pytest.mark.parametrize("names", [None, "fox", [], [1, 2], ["fox", ""], {"0": "fox"}])
def test_without_names_classes_are_numbers(tmp_path, names):
    assert read(write(tmp_path / "x.parquet", [("a", 7), ("b", 3)], names)).classes == ("3", "7")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"[]", b"\xff", b'{"info": {"features": 5}}', b"null"])
def test_hostile_metadata_is_skipped(tmp_path, text):
    table = pa.table({"image": pa.array([{"bytes": b"1", "path": "a"}], STRUCT), "label": [4]})
    path = write_table(tmp_path / "x.parquet", table.replace_schema_metadata({"huggingface": text}))
    assert read(path).classes == ("4",)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"img": "struct", "fine_label": pa.uint8()}, {"x/0.jpg": 0, "x/1.jpg": 1}),
        ({"image": "bytes", "labels": pa.int32()}, {"x/0": 0, "x/1": 1}),
        ({"image": "large", "label": pa.int64(), "labels": pa.int64()}, {"x/0.jpg": 0, "x/1.jpg": 1}),
        ({"image": "bytes"}, {"x/0": -1, "x/1": -1}),
        ({"caption": "other", "image": "struct"}, {"x/0.jpg": -1, "x/1.jpg": -1}),
    ],
)
def test_columns_come_in_several_kinds(tmp_path, columns, expected):
    images = [{"bytes": pixels(row), "path": f"{row}.jpg"} for row in range(2)]
    large = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])
    arrays = {
        "struct": pa.array(images, STRUCT),
        "large": pa.array(images, large),
        "bytes": pa.array([image["bytes"] for image in images]),
        "other": pa.array(["a", "b"]),
    }
    table = {name: arrays[kind] if isinstance(kind, str) else pa.array([0, 1], kind) for name, kind in columns.items()}
    catalogue = read(write_table(tmp_path / "x.parquet", pa.table(table)))
    assert labels(catalogue) == expected
    assert [record.read() for record in catalogue.records] == [pixels(0), pixels(1)]


# reading rows


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_rows_are_read_in_any_order(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "x.parquet"
    count, group = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    write(path, [(f"{row}.jpg", 0) for row in range(count)], group=group, use_dictionary=data.draw(st.booleans()))
    records = read(path).records
    for row in data.draw(st.lists(st.integers(0, count - 1), max_size=20)):
        assert records[row].read() == pixels(row)


def test_rows_of_two_files_are_read_in_turn(tmp_path):
    write(tmp_path / "a.parquet", [("a", 0)] * 6)
    write(tmp_path / "b.parquet", [("b", 0)] * 6)
    records = read(tmp_path).records
    for row in range(6):
        assert records[row].read() == records[row + 6].read() == pixels(row)


def test_rows_in_order_are_decoded_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        parquet_rows, "open_table", lambda path, **options: opened.append(path) or pq.ParquetFile(path, **options)
    )
    records = read(write(tmp_path / "x.parquet", [("a", 0)] * 40, group=10)).records
    opened.clear()
    batches = []
    leaves = parquet_rows.leaves_of
    monkeypatch.setattr(parquet_rows, "leaves_of", lambda batch: batches.append(batch.num_rows) or leaves(batch))
    assert [record.read() for record in records] == [pixels(row) for row in range(40)]
    assert len(opened) == 1
    assert batches == [1] * 40


def test_a_record_is_pickled_and_read_by_threads(tmp_path):
    records = pickle.loads(pickle.dumps(read(write(tmp_path / "x.parquet", [("a", 0)] * 60, group=7)).records))
    assert isinstance(records[0], ParquetRecord)
    contents: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda step=step: contents.append([record.read() for record in records[::step]]))
        for step in (1, -1, 1, -1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [pixels(row) for row in range(60)]
    assert sorted(contents) == sorted([expected, expected[::-1]] * 2)


def test_a_forked_process_opens_the_file_itself(tmp_path, monkeypatch):
    record = read(write(tmp_path / "x.parquet", [("a", 0)])).records[0]
    record.read()
    before = parquet_rows._thread.rows
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert record.read() == pixels(0)
    assert parquet_rows._thread.rows is not before


def test_a_file_that_has_taken_the_place_of_another_is_opened_anew(tmp_path):
    path = tmp_path / "x.parquet"
    records = read(write(path, [("a", 0)] * 3)).records
    assert records[1].read() == pixels(1)
    write_table(path, pa.table({"image": pa.array([b"0", b"new"])}))
    assert records[1].read() == b"new"
    with pytest.raises(OSError, match="fewer rows than it had"):
        records[2].read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        records[1].read()


def test_the_size_follows_the_content_without_its_being_read(tmp_path):
    table = pa.table({"image": pa.array([{"bytes": os.urandom(1000), "path": "a"}] * 2, STRUCT)})
    small = read(write_table(tmp_path / "x.parquet", table)).records[0].size()
    table = pa.table({"image": pa.array([{"bytes": os.urandom(3000), "path": "a"}] * 2, STRUCT)})
    assert 0 < small < read(write_table(tmp_path / "x.parquet", table)).records[0].size()


def test_a_catalogue_reads_no_image(tmp_path):
    images = [{"bytes": os.urandom(2**20), "path": f"{row}.jpg"} for row in range(24)]
    path = write_table(tmp_path / "x.parquet", pa.table({"image": pa.array(images, STRUCT), "label": [0] * 24}))
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    records = read(path).records
    assert len(records) == 24
    with pytest.raises(OSError, match=r".") as caught:
        records[0].read()
    assert caught.value.filename == str(path)
    assert "\n" not in caught.value.strerror


# what is missing or wrong


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_without_an_image_are_noted(tmp_path, statistics):
    images = [{"bytes": b"1", "path": "a.jpg"}, None, {"bytes": None, "path": "b.jpg"}, {"bytes": b"2", "path": None}]
    table = pa.table({"image": pa.array(images, STRUCT), "label": [0, 1, 2, None]})
    catalogue = read(write_table(tmp_path / "x.parquet", table, row_group_size=3, write_statistics=statistics))
    assert labels(catalogue) == {"x/0.jpg": 0, "x/3": -1}
    assert catalogue.notes == (
        "x.parquet: row 1: no image",
        "x.parquet: row 2: the path of an image, but not its bytes",
        "x.parquet: 3: label is null, so the image is unlabeled",
    )
    assert [record.read() for record in catalogue.records] == [b"1", b"2"]


def test_a_part_that_is_not_there_is_noted(tmp_path):
    write(tmp_path / "train-00001-of-00003.parquet", [("a.jpg", 0)])
    write(tmp_path / "test-00000-of-00001-0123456789abcdef.parquet", [("a.jpg", 0)])
    reason = "a part of the data set that is not there"
    assert read(tmp_path).notes == tuple(f"train-0000{part}-of-00003.parquet: {reason}" for part in (0, 2))


def test_an_image_that_two_rows_are_called_by_is_noted(tmp_path):
    catalogue = read(write(tmp_path / "x.parquet", [("n01440764_1.JPEG", 0), ("n01440764_1.JPEG", 0)]))
    assert [record.read() for record in catalogue.records] == [pixels(0)]
    assert catalogue.notes == ("train/n01440764/n01440764_1.JPEG: an image met before",)


def test_two_data_sets_in_a_folder_are_an_error(tmp_path):
    write(tmp_path / "a.parquet", [("a", 0)], ["cat"])
    write(tmp_path / "b.parquet", [("a", 0)], ["dog"])
    with pytest.raises(SalpipeError, match=r"b\.parquet: names other classes than .*a\.parquet; give one data set"):
        read(tmp_path)


def test_fewer_names_than_labels_are_an_error(tmp_path):
    with pytest.raises(SalpipeError, match=r"x\.parquet: names 1 classes, but there is a label 1; complete it"):
        read(write(tmp_path / "x.parquet", [("a", 1)], ["cat"]))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"text": ["a"]}, "no column image with the bytes of images"),
        ({"image": ["a.jpg"]}, "no column image with the bytes of images"),
        ({"image": [[b"a"]]}, "no column image with the bytes of images"),
        ({"image": [{"path": "a.jpg"}]}, "no column image with the bytes of images"),
        ({"image": [{"bytes": b"1"}], "image.bytes": [1]}, "no column image with the bytes of images"),
        ({"image": [b"1"], "label": ["cat"]}, "column label is string; give the classes as numbers"),
        ({"image": pa.array([], pa.binary())}, "no images in its tables"),
    ],
)
def test_tables_of_another_kind_are_an_error(tmp_path, table, reason):
    with pytest.raises(SalpipeError, match=reason):
        read(write_table(tmp_path / "x.parquet", pa.table(table)))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>" * 100, b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_table_is_an_error_of_one_line(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    assert LAYOUT.recognize(tmp_path)
    with pytest.raises(SalpipeError, match=r"x\.parquet: .*; download it again$") as caught:
        read(tmp_path)
    assert str(caught.value).isprintable()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_crashes_it(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    table = bytearray(write(path, [("a.jpg", 0), (None, 1), ("c.jpg", 2)], ["a", "b", "c"]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(table[: data.draw(st.integers(len(table) - 3, len(table)))])
    try:
        records = read(path).records
        for record in records:
            record.read()
    except (SalpipeError, OSError):
        pass


def test_an_image_that_takes_all_memory_is_refused(tmp_path, monkeypatch):
    record = read(write(tmp_path / "x.parquet", [("a", 0)])).records[0]
    monkeypatch.setattr(parquet_rows, "MAX_FILE_BYTES", 10)
    with pytest.raises(OSError, match="File too large"):
        record.read()


def test_a_row_group_that_takes_all_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_MAX_GROUP_BYTES", 50)
    with pytest.raises(SalpipeError, match="more than 50 bytes in row group 0; write it with smaller row groups"):
        read(write(tmp_path / "x.parquet", [("a", 0)] * 2))


def test_more_rows_than_bytes_are_refused(tmp_path):
    with pytest.raises(SalpipeError, match="claims more rows than there is room for"):
        read(write_table(tmp_path / "x.parquet", pa.table({"image": pa.array([b"1"] * 10**6)})))


def test_one_long_name_for_many_rows_is_held_once(tmp_path):
    name = pa.DictionaryArray.from_arrays(pa.array([0] * 2000), pa.array(["x" * 10**6]))
    images = pa.StructArray.from_arrays([pa.array([os.urandom(400) for _ in range(2000)]), name], ["bytes", "path"])
    path = write_table(tmp_path / "x.parquet", pa.table({"image": images}), row_group_size=2000, store_schema=False)
    del images
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    assert next(iter(labels(read(path)))) == "x/0"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + pa.total_allocated_bytes() - before < 2**24


def test_without_pyarrow_the_remedy_is_named(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", [("a", 0)])
    original_import = builtins.__import__

    def missing(name, *args):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SalpipeError, match=r"needs pyarrow; pip install 'saliency-pipeline\[parquet\]'"):
        read(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"cat/1.jpg": b"1", "dog/1.jpg": b"2"},
        {"train/1.jpg": b"1", "metadata.parquet": b"PAR1", "._x.parquet": b""},
        {"ILSVRC2012_img_val.tar": tar_bytes({"ILSVRC2012_val_00000001.JPEG": b"1"})},
        {"imagenet1k-train-0000.tar": tar_bytes({"a.jpg": b"1", "a.cls": b"0"})},
        {"x.parquet/part-0.txt": b"1"},
        {},
    ],
)
def test_other_layouts_are_not_recognized(tmp_path, files):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        assert not LAYOUT.recognize(tmp_path / name)
    assert not LAYOUT.recognize(tmp_path)
    with pytest.raises(SalpipeError, match=r"no tables \(\*\.parquet\); give a folder of tables"):
        read(tmp_path)
