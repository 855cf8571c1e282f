"""Where the objects are: any number of boxes an image, stored only where the data set knows them."""

import dataclasses

import h5py
import numpy as np
import pytest

from saliency_pipeline.errors import IntegrityError
from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import verify
from tests.shards.examples import folder, header, rows, write

BOXES = [((1, 2, 30, 40), (-5, 0, 9, 9)), (), ((7, 7, 8, 8),)]


def boxed(count=3, encoding="raw"):
    return dataclasses.replace(rows(count, encoding), boxes=BOXES[:count])


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("capacity", [3, 9])
def test_boxes_come_back_image_by_image(tmp_path, encoding, capacity):
    path = write(tmp_path / "a.h5", header(encoding, boxes=True), boxed(encoding=encoding), (2, 1), capacity)
    shard = Shard(path)
    for row, boxes in enumerate(BOXES):
        stored = shard.boxes(row)
        assert (stored.dtype, stored.shape) == (np.int32, (len(boxes), 4))
        assert [tuple(box) for box in stored.tolist()] == list(boxes)
    assert verify(path, deep=True).problems == ()
    with h5py.File(path) as file:
        assert file["source/box_offset"][:].tolist() == [0, 2, 2, 3]


def test_a_shard_without_boxes_has_none(tmp_path):
    shard = Shard(write(tmp_path / "a.h5", header(), rows(2)))
    assert shard.boxes(0).shape == (0, 4)
    assert not shard.header.boxes
    with h5py.File(shard.path) as file:
        assert sorted(file["source"]) == ["sha256", "size"]


def test_rows_and_header_agree_on_boxes(tmp_path):
    with pytest.raises(ValueError, match="3 keys but 0 images in source/box"):
        write(tmp_path / "a.h5", header(boxes=True), rows(3))
    with pytest.raises(ValueError, match="boxes for a shard without boxes"):
        write(tmp_path / "b.h5", header(), boxed())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [3, 2**63])
def test_damaged_offsets_are_named(tmp_path, value):
    path = write(tmp_path / "a.h5", header(boxes=True), boxed())
    with h5py.File(path, "r+") as file:
        file["source/box_offset"][1] = value if value > 3 else 0
        file["source/box_offset"][2] = value
        file["source/box_offset"][3] = 1
    messages = [problem.message for problem in verify(path, deep=True).problems]
    assert messages == ["source/box_offset does not run from 0 to the end of source/box"]
    with pytest.raises(IntegrityError, match="source/box_offset does not fit source/box"):
        Shard(path).boxes(2)


def test_boxes_of_another_shape_or_behind_a_link_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", header(boxes=True), boxed())
    with h5py.File(path, "r+") as file:
        del file["source/box"]
        file.create_dataset("source/box", data=np.zeros((3, 5), np.int32))
    assert read_layout(path)[1] == ["source/box is int32 (3, 5), not int32 (total, 4)"]
    with h5py.File(path, "r+") as file:
        del file["source/box"]
        file["source/box"] = h5py.ExternalLink("elsewhere.h5", "/box")
    layout, problems = read_layout(path)
    assert (layout.header.boxes, problems) == (False, [])


def test_the_manifest_says_whether_there_are_boxes(tmp_path):
    path = folder(tmp_path / "a")
    manifest = Manifest.read(path)
    assert not manifest.header.boxes
    dataclasses.replace(manifest, header=header(boxes=True)).write(path)
    assert Manifest.read(path).header.boxes
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"boxes": true,', "").replace('"1.1"', '"1.0"'))
    assert not Manifest.read(path).header.boxes
