"""Groups of images: a number per image, stored only if there are groups."""

import dataclasses

import h5py
import numpy as np
import pytest

from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import verify
from tests.shards.examples import header, rows, write

GROUPS = np.array([0, -1, 0], np.int64)


def grouped():
    return dataclasses.replace(rows(3), groups=GROUPS)


@pytest.mark.parametrize("capacity", [3, 9])
def test_groups_come_back(tmp_path, capacity):
    path = write(tmp_path / "a.h5", header(groups=True), grouped(), (2, 1), capacity)
    assert Shard(path).groups.tolist() == [0, -1, 0]
    assert verify(path, deep=True).problems == ()


def test_a_shard_without_groups_has_none(tmp_path):
    shard = Shard(write(tmp_path / "a.h5", header(), rows(2)))
    assert shard.groups.tolist() == [-1, -1]
    with h5py.File(shard.path) as file:
        assert "group" not in file["source"]


def test_rows_and_header_agree_on_groups(tmp_path):
    with pytest.raises(ValueError, match="source/group is"):
        write(tmp_path / "a.h5", header(groups=True), rows(3))
    with pytest.raises(ValueError, match="groups for a shard without groups"):
        write(tmp_path / "b.h5", header(), grouped())
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_is_found_deep(tmp_path):
    path = write(tmp_path / "a.h5", header(groups=True), grouped())
    with h5py.File(path, "r+") as file:
        file["source/group"][1] = -2
    messages = [problem.message for problem in verify(path, deep=True).problems]
    assert messages == ["source/group of image 1 is -2, outside [-1, inf]"]


def test_the_manifest_says_whether_there_are_groups(tmp_path):
    manifest = Manifest(header(), 0, ())
    for groups in (False, True):
        dataclasses.replace(manifest, header=header(groups=groups)).write(tmp_path)
        assert Manifest.read(tmp_path).header.groups is groups
