"""Bounds on the memory of parquet files, whatever their metadata claim."""

import os
import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.datasets import parquet, parquet_pages, parquet_rows
from saliency_pipeline.datasets.exported_tables import read_columns, read_rows
from saliency_pipeline.datasets.parquet_pages import Chunk, check_pages, row_groups
from saliency_pipeline.errors import SalpipeError
from tests.datasets.test_parquet import STRUCT, read, write_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]
CASES = [(codec, dictionary) for codec in CODECS for dictionary in (True, False)]


def table(images: list[bytes], names: list[str]) -> Any:
    rows = [{"bytes": image, "path": name} for image, name in zip(images, names, strict=True)]
    return pa.table({"image": pa.array(rows, STRUCT), "label": [0] * len(rows)})


def chunk(path: Path, column: int) -> Chunk:
    return row_groups(str(path))[0].chunks[column]


def claimed(tmp_path: Path, header: bytes, start: int = 4, size: int = 1000, kind: str = "BYTE_ARRAY") -> Any:
    """A file that holds a header of a page after its first four bytes, and the metadata of the column it is in."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + header + bytes(size))
    return tmp_path / "x.parquet", Chunk(
        "image.path", kind == "BYTE_ARRAY", data=start, dictionary=None, packed=len(header) + size, unpacked=0, nulls=0
    )


def number(value: int) -> bytes:
    """A number as Thrift's compact protocol has it."""
    value = value << 1 if value >= 0 else (-value << 1) - 1
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def data_page(unpacked: int, packed: int, encoding: int = 0, values: int = 1) -> bytes:
    details = b"\x15" + number(values) + b"\x15" + number(encoding) + b"\x15\x06\x15\x06\x00"
    return b"\x15\x00\x15" + number(unpacked) + b"\x15" + number(packed) + b"\x2c" + details + b"\x00"


def dictionary_page(unpacked: int, packed: int, values: int) -> bytes:
    details = b"\x15" + number(values) + b"\x15\x00\x00"
    return b"\x15\x04\x15" + number(unpacked) + b"\x15" + number(packed) + b"\x4c" + details + b"\x00"


@pytest.mark.parametrize(("codec", "dictionary"), CASES)
def test_names_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, codec, dictionary):
    monkeypatch.setattr(parquet, "MAX_LIGHT_BYTES", 2**20)
    names = [chr(97 + row) * 2**18 for row in range(10)]
    data = table([os.urandom(99) for _ in names], names)
    path = write_table(tmp_path / "x.parquet", data, compression=codec, use_dictionary=dictionary)
    del data
    before = pa.total_allocated_bytes()
    with pytest.raises(SalpipeError, match=r"x\.parquet: column image\.path unpacks to more than 1,048,576 bytes"):
        read(path)
    assert pa.total_allocated_bytes() - before < 2**17


@pytest.mark.parametrize(("codec", "dictionary"), [case for case in CASES if case[0] != "none"])
@pytest.mark.parametrize("statistics", [True, False])
def test_images_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, codec, dictionary, statistics):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 2**18)
    images = [bytes([row]) * 2**18 for row in range(3)]
    options = {"use_dictionary": dictionary, "write_statistics": statistics}
    path = write_table(tmp_path / "x.parquet", table(images, ["a" * 99] * 3), compression=codec, **options)
    reason = r"a page of column image\.bytes unpacks to [0-9,]* bytes"
    if statistics:  # images are not looked at before they are read
        record = read(path).records[0]
        with pytest.raises(OSError, match=reason):
            record.read()
    else:
        with pytest.raises(SalpipeError, match=rf"x\.parquet: {reason}"):
            read(path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_images_that_are_compressed_already_have_large_pages(tmp_path, monkeypatch, codec, version, dictionary):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 2**10)
    images = [os.urandom(2**16) for _ in range(3)]
    options = {"use_dictionary": dictionary, "data_page_version": version, "compression": codec}
    records = read(write_table(tmp_path / "x.parquet", table(images, ["a.jpg"] * 3), **options)).records
    assert [record.read() for record in records] == images


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_lengths_apart_from_their_texts_are_refused(tmp_path, encoding):
    data = table([os.urandom(99)] * 3, ["a", "b", "c"])
    options = {"use_dictionary": False, "column_encoding": {"image.path": encoding}}
    with pytest.raises(SalpipeError, match=rf"column image\.path is in {encoding}, not in plain or dictionary encodi"):
        read(write_table(tmp_path / "x.parquet", data, **options))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (data_page(2**31 - 1, 100), "a page of column image.path unpacks to 2,147,483,647 bytes"),
        (data_page(-1, 100), "damaged headers"),
        (data_page(100, -1), "damaged headers"),
        (dictionary_page(100, 100, 2**31 - 1), "a dictionary of 2,147,483,647 values in column image.path"),
        (data_page(100, 100, encoding=6), "is in DELTA_LENGTH_BYTE_ARRAY"),
        (data_page(9, 9) + bytes(9) + data_page(9, 9, encoding=7), "is in DELTA_BYTE_ARRAY"),
        (data_page(400, 9) + bytes(9) + data_page(601, 9), "unpacks to more than 1,000 bytes in a row group"),
        (b"", "damaged headers"),
        (b"\xff" * 2000, "damaged headers"),
        (b"\x1c" * 2000, "damaged headers"),  # structures without end
        (b"\x18" + b"\xff" * 9 + b"\x01", "damaged headers"),  # a text without end
    ],
)
def test_headers_of_pages_are_not_believed(tmp_path, header, reason):
    path, column = claimed(tmp_path, header)
    with pytest.raises(ValueError, match=reason):
        check_pages(str(path), column, 10, 1000)


def test_a_packed_size_beyond_the_file_is_worth_no_more_than_the_file(tmp_path):
    path, column = claimed(tmp_path, data_page(2**30, 2**30))
    with pytest.raises(ValueError, match="unpacks to 1,073,741,824 bytes"):
        check_pages(str(path), column, 10)


def test_numbers_may_be_in_any_encoding(tmp_path):
    path, column = claimed(tmp_path, data_page(9, 1000, encoding=6), kind="INT64")
    check_pages(str(path), column, 10)


def test_a_header_longer_than_usual_is_read(tmp_path):
    text = b"\x18" + b"\x90\x4e" + bytes(10_000)
    details = b"\x15\x02\x15\x00\x15\x06\x15\x06\x1c" + text + b"\x00\x00"
    path, column = claimed(tmp_path, b"\x15\x00\x15\x12\x15" + number(1000) + b"\x2c" + details + b"\x00")
    check_pages(str(path), column, 10)


def test_any_bytes_are_headers_or_refused(tmp_path):
    draw = random.Random(0)
    for _ in range(300):
        good = bytearray(data_page(100, 30) + bytes(30) + dictionary_page(100, 30, 3) + bytes(30))
        good[draw.randrange(len(good))] = draw.randrange(256)
        path, column = claimed(tmp_path, bytes(good), size=0)
        with suppress(ValueError):
            check_pages(str(path), column, 10, 1000)


@pytest.mark.parametrize("size", [2**25 + 1, 2**31, 2**32 - 1])
def test_a_footer_that_would_fill_memory_is_not_read(tmp_path, size):
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(100) + size.to_bytes(4, "little") + b"PAR1")
    with pytest.raises(SalpipeError, match=rf"x\.parquet: its footer has {size:,} bytes, more than 33,554,432"):
        read(tmp_path / "x.parquet")


def test_more_columns_than_any_table_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "MAX_THRIFT_ITEMS", 50)
    data = table([os.urandom(99)], ["a"])
    for column in range(60):
        data = data.append_column(f"c{column}", pa.array([1]))
    with pytest.raises(SalpipeError, match=r"x\.parquet: .*size limit"):
        read(write_table(tmp_path / "x.parquet", data))


def test_a_row_group_without_the_column_is_refused(tmp_path):
    path = write_table(tmp_path / "x.parquet", table([b"1"], ["a"]))
    with pytest.raises(ValueError, match=r"a row group without the column image\.other"):
        row_groups(str(path))[0].chunk("image.other")


@pytest.mark.parametrize("codec", CODECS)
def test_row_groups_are_those_of_arrow(tmp_path, codec):
    data = table([os.urandom(99)] * 5, ["a", None, "c", "d", "e"])
    path = write_table(tmp_path / "x.parquet", data, row_group_size=2, compression=codec)
    metadata = pq.read_metadata(path)
    groups = row_groups(str(path))
    assert [group.rows for group in groups] == [2, 2, 1]
    for number, group in enumerate(groups):
        for place, chunk in enumerate(group.chunks):
            theirs = metadata.row_group(number).column(place)
            assert chunk == Chunk(
                theirs.path_in_schema,
                theirs.physical_type == "BYTE_ARRAY",
                theirs.data_page_offset,
                theirs.dictionary_page_offset,
                theirs.total_compressed_size,
                theirs.total_uncompressed_size,
                theirs.statistics.null_count,
            )


TYPE_OF_IMAGES = b"\x15\x0c\x19"
"""In the footer: that a column holds bytes, and that the list of its encodings follows."""


@pytest.mark.parametrize("type_", [b"\x15\x04\x19", b"\x15\x40\x19"], ids=["another", "unknown"])
def test_metadata_that_contradict_themselves_do_not_end_the_process(tmp_path, type_):
    path = write_table(tmp_path / "x.parquet", table([b"1" * 99] * 2, ["a", "b"]))
    before, middle, after = path.read_bytes().partition(TYPE_OF_IMAGES)
    assert middle
    path.write_bytes(before + type_ + after)
    code = "import sys; from tests.datasets.test_parquet import read; from pathlib import Path; read(Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert ended.returncode in (0, 1), ended.stderr
    assert ended.returncode == 0 or "SalpipeError" in ended.stderr


def test_any_footer_is_read_or_refused(tmp_path):
    draw = random.Random(0)
    data = write_table(tmp_path / "x.parquet", table([b"1" * 99] * 2, ["a", "b"])).read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    for _ in range(500):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data) - 8 - length, len(data) - 8)] = draw.randrange(256)
        (tmp_path / "x.parquet").write_bytes(damaged)
        with suppress(ValueError):
            row_groups(str(tmp_path / "x.parquet"))


def test_a_footer_of_too_many_fields_is_refused(tmp_path, monkeypatch):
    path = write_table(tmp_path / "x.parquet", table([b"1" * 99] * 2, ["a", "b"]))
    monkeypatch.setattr(parquet_pages, "_MAX_FIELDS", 20)
    with pytest.raises(SalpipeError, match=r"x\.parquet: damaged metadata; "):
        read(path)


def test_long_names_are_not_kept_row_by_row(tmp_path):
    names = [f"{row}{'x' * 2000}" for row in range(500)]
    data = table([b"1" * 99] * 500, names)
    path = write_table(tmp_path / "x.parquet", data, write_statistics=False)
    del data, names
    tracemalloc.start()
    assert len(read(path).records) == 500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_pipe_in_the_place_of_a_table_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        check_pages(str(tmp_path / "pipe"), claimed(tmp_path, b"")[1], rows=1)


def test_rows_of_an_export_have_room_in_the_file(tmp_path):
    count = 100_000
    data = {"key": ["a"] * count, "split": ["train"] * count, "image": pa.array([None] * count, STRUCT)}
    path = write_table(tmp_path / "x.parquet", pa.table(data))
    assert path.stat().st_size < 10_000
    with pytest.raises(OSError, match="claims more rows than there is room for"):
        next(read_rows(str(path), ["key", "split"], []))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_values_of_a_map_are_no_more_than_its_cells(tmp_path, version):
    """A few bytes of a dictionary's encoding stand for as many equal values as they like."""
    maps = pa.array([[0.5] * 2**20, [0.5] * 3], pa.list_(pa.float32()))
    path = write_table(tmp_path / "x.parquet", pa.table({"map": maps}), data_page_version=version)
    assert path.stat().st_size < 10_000
    with pytest.raises(OSError, match=r"column map\.list\.element has more than 32 values in a row group"):
        read_columns(str(path), 0, ["map"], 2**31, 16)
    assert len(read_columns(str(path), 0, ["map"], 2**31, 2**20)["map"]) == 2
