"""MATLAB files: those of scipy, damaged ones, compressed bombs, nested cells."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from saliency_pipeline.datasets.imagenet.matlab import MAX_BYTES, structures


def mat_bytes(rows, name="synsets", *, packed=False, before=None):
    table = np.array([tuple(row.values()) for row in rows], [(field, "O") for field in rows[0]]).reshape(-1, 1)
    file = io.BytesIO()
    savemat(file, {**(before or {}), name: table}, do_compression=packed)
    return file.getvalue()


ROWS = [
    {"ILSVRC2012_ID": 1, "WNID": "n02119789", "words": "kit fox, Vulpes macrotis", "children": np.zeros((0, 0))},
    {"ILSVRC2012_ID": 1860, "WNID": "n00001740", "words": "entité", "children": np.arange(3.0)},
]


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_and_texts_come_back(packed):
    data = mat_bytes(ROWS, packed=packed, before={"readme": "a text", "table": np.eye(3)})
    assert structures(data, "synsets") == [{**row, "children": None} for row in ROWS]


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31), st.floats(allow_nan=False), st.text("a é,_ö", min_size=1))))
@settings(max_examples=50)
def test_it_reads_what_scipy_reads(values):
    rows = [{"id": a, "x": b, "words": c} for a, b, c in [(0, 0.5, "a"), *values]]
    data = mat_bytes(rows)
    twin = loadmat(io.BytesIO(data), squeeze_me=True, chars_as_strings=True)["synsets"].reshape(-1)
    rows_read = structures(data, "synsets")
    assert [(row["id"], row["x"]) for row in rows_read] == [(row["id"], row["x"]) for row in twin]
    assert [str(row["words"]).rstrip() for row in rows_read] == [str(row["words"]).rstrip() for row in twin]


@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_anywhere_is_no_crash(packed):
    data = mat_bytes(ROWS, packed=packed)
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"no synsets|cut short|no MAT-file|no array|no fields"):
            structures(data[:length], "synsets")


@given(st.data())
@settings(max_examples=200)
def test_a_wrong_byte_is_no_crash(drawn):
    data = bytearray(mat_bytes(ROWS))
    data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    try:
        elements = structures(bytes(data), "synsets")
    except ValueError:
        return
    assert isinstance(elements, list)


def element(kind, body):
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def mat_file(*elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"".join(elements)


def test_a_packed_bomb_stays_packed():
    bomb = zlib.compress(bytes(20 * MAX_BYTES), 9)
    data = mat_file(struct.pack("<II", 15, len(bomb)) + bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match="too large"):
        structures(data, "synsets")
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    tracemalloc.stop()


def test_many_packed_bombs_are_no_more_than_one():
    bomb = zlib.compress(bytes(MAX_BYTES // 2), 9)
    with pytest.raises(ValueError, match="too large"):
        structures(mat_file(*[struct.pack("<II", 15, len(bomb)) + bomb] * 500), "synsets")


def test_cells_in_cells_are_not_followed():
    """scipy.io.loadmat ends with a segmentation fault on these."""
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1))
    size, parts = 0, []
    for _ in range(50_000):
        size += 8 + len(head) + 8
        parts.append(struct.pack("<II", 14, size - 8) + head + element(1, b""))
    data = mat_file(
        struct.pack("<II", 14, size + len(head) + 16) + head + element(1, b"synsets") + b"".join(reversed(parts))
    )
    with pytest.raises(ValueError, match="no array of structures"):
        structures(data, "synsets")


@pytest.mark.parametrize("data", [b"", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", bytes(300), mat_file()])
def test_another_kind_of_file_is_refused(data):
    with pytest.raises(ValueError, match=r"no MAT-file of level 5|no synsets"):
        structures(data, "synsets")
