"""Small files with huge declared sizes are refused before memory of that size is allocated."""

import json
import resource
import tracemalloc

import h5py
import numpy as np
import pytest

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.shards.layout import _overlapping, read_layout
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import Column, MapShape, ShardHeader
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from tests.odd_files import make_odd
from tests.shards.examples import SIZE, folder, header, jpeg, rows, write


def claim(path, **attributes):
    """Change attributes of a shard."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            del file.attrs[name]
            file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    return path


def replace(path, name, shape, dtype):
    """Put an empty data set of some shape in the place of another; nothing is written of it."""
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind = h5py.h5t.py_create(np.dtype(dtype) if isinstance(dtype, str) else dtype, logical=True)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), properties, lcpl=links)


def problems(path) -> list[str]:
    assert [problem.message for problem in verify(path).problems] == read_layout(path)[1]
    return read_layout(path)[1]


@pytest.mark.parametrize("size", [200_000, 10_000, 2_000])
def test_frames_that_their_jpegs_cannot_hold(tmp_path, size):
    path = claim(write(tmp_path / "a.h5", header("jpeg"), rows(3, "jpeg")), size=np.int64(size))
    (problem,) = problems(path)
    wanted = "more than 16,384 pixels" if size > 16_384 else "bytes of JPEG"
    assert wanted in problem
    with pytest.raises(IntegrityError, match=wanted):
        Shard(path).images()


@pytest.mark.parametrize("image", [np.full((SIZE, SIZE, 3), 255, np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8)])
def test_frames_of_one_color_are_small_but_no_lie(tmp_path, image):
    whole = rows(2, "jpeg")
    whole.images[:] = [jpeg(image)] * 2
    assert problems(write(tmp_path / "a.h5", header("jpeg"), whole)) == []


@pytest.mark.parametrize("shape", [(0, 1, 100_000, 100_000), (0, 2**20, 16, 17), (0, 1, 0, 0)])
def test_maps_of_any_size_without_a_row(tmp_path, shape):
    path = write(tmp_path / "a.h5", header(), rows(0))
    replace(path, "saliency/gradcam/map", shape, "<f2")
    (problem, *_) = problems(path)
    assert "too many cells" in problem or "does not look like a method's maps" in problem


def test_rows_without_end_and_keys_without_end(tmp_path):
    path = write(tmp_path / "a.h5", header(), rows(2))
    for shape, width in (((2**20 + 1,), 1), ((2**11,), 2**20)):
        replace(path, "key", shape, h5py.string_dtype("utf-8", width))
        (problem,) = problems(path)
        assert "more than a shard holds" in problem


def test_classes_and_provenance_without_end(tmp_path):
    path = write(tmp_path / "a.h5", header(), rows(1))
    claim(path, classes=json.dumps([""] * (2**20 + 1), separators=(",", ":")))
    assert "1,048,577 classes, more than 1,048,576" in problems(path)[0]
    claim(path, classes=json.dumps(["x" * 2**24]))
    assert "attribute classes does not fit" in problems(path)[0]


@pytest.mark.parametrize("name", ["provenance", "classes"])
def test_attributes_without_depth(tmp_path, name):
    path = write(tmp_path / "a.h5", header(), rows(1))
    for text in ("[" * 50_000, "[" * 100 + "]" * 100, '{"a":' * 500 + "1" + "}" * 500):
        claim(path, **{name: text})
        assert problems(path) == ["not a readable shard (nested too deeply)"]


def test_the_same_bytes_are_not_read_as_several_data_sets():
    """With an address changed under a checksum that fits, as a stranger could write it, any number could lie there."""
    byte, column = Column(np.dtype("u1"), (10,)), Column(np.dtype("<f4"), (10,))
    assert list(_overlapping({"a": (100, byte), "b": (110, column), "c": (0, Column(byte.dtype, (0,)))})) == []
    assert list(_overlapping({"a": (100, column), "b": (100, column)})) == ["b lies over a"]
    assert list(_overlapping({"a": (0, column), "b": (10, byte), "c": (39, byte)})) == [
        "b lies over a",
        "c lies over b",
    ]


def test_a_jpeg_of_huge_dimensions_is_not_decoded(tmp_path):
    whole = rows(2, "jpeg")
    data = bytearray(whole.images[1])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    whole.images[1] = bytes(data)
    path = write(tmp_path / "a.h5", header("jpeg"), whole)
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="cannot be decoded"):
        Shard(path)[1]
    assert "cannot be decoded" in verify(path, deep=True).problems[0].message
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path):
    whole = rows(2, "jpeg")
    start = whole.images[1].index(b"\xff\xda")
    whole.images[1] = whole.images[1][:start] + whole.images[1][start:-2] * 200 + b"\xff\xd9"
    path = write(tmp_path / "a.h5", header("jpeg"), whole)
    with pytest.raises(IntegrityError, match="has more than 100 scans"):
        Shard(path)[1]


def test_headers_have_bounds():
    with pytest.raises(ValueError, match="size is 16,385, more than 16,384"):
        ShardHeader("p", {}, (), 16_385, "raw", {})
    with pytest.raises(ValueError, match="too many cells"):
        ShardHeader("p", {}, (), 224, "raw", {"gradcam": MapShape(1, 16_385, 1)})
    ShardHeader("p", {}, (), 16_384, "raw", {"gradcam": MapShape(1000, 224, 224)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 10**6}, "size is 1,000,000"),
        ({"rejects": -1}, "-1 rejected images"),
        ({"provenance": {"a": [[[[]]] * 3] * 3}}, None),
        ({"images": 10**12}, "the entry of shard-00000.h5 is impossible"),
    ],
)
def test_manifests_have_bounds(tmp_path, change, message):
    path = folder(tmp_path / "f", (2,)) / "manifest.json"
    data = json.loads(path.read_text()) | change
    if "images" in change:
        data["shards"][0]["images"] = change["images"]
    path.write_text(json.dumps(data))
    if message is None:
        assert Manifest.read(path.parent).header.provenance == change["provenance"]
    else:
        with pytest.raises(IntegrityError, match=message):
            Manifest.read(path.parent)


ODD = ("pipe", "device", "sparse", "folder", "deep")


@pytest.fixture
def little_memory():
    """A limit on memory, so that a test that would fill it fails instead."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.usefixtures("little_memory")
def test_a_manifest_that_is_none_is_answered(tmp_path, kind):
    path = folder(tmp_path / "f", (2,))
    make_odd(path / "manifest.json", kind)
    for use in (ShardFolder, inspect):
        with pytest.raises(SalpipeError, match=r"manifest\.json"):
            use(path)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.usefixtures("little_memory")
def test_a_shard_that_is_none_is_answered(tmp_path, kind):
    path = folder(tmp_path / "f", (2,))
    make_odd(path / "shard-00000.h5", kind)
    assert verify(path, deep=True).damaged == ("shard-00000.h5",)
    with pytest.raises(SalpipeError, match=r"shard-00000\.h5"):
        inspect(path)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.usefixtures("little_memory")
def test_rejects_that_are_none_are_answered(tmp_path, kind, monkeypatch):
    path = folder(tmp_path / "f", (2,))
    make_odd(path / "rejects.jsonl", kind)
    assert verify(path).damaged == ("rejects.jsonl",)
    if kind in ("sparse", "deep"):
        assert list(inspect(path).rejects) == ["unreadable line of rejects.jsonl"]
    else:
        with pytest.raises(IntegrityError, match=r"rejects\.jsonl: cannot be read"):
            inspect(path)
