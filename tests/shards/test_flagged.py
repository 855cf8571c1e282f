"""Shares of all-zero and constant maps by class."""

import numpy as np

from saliency_pipeline.shards.flagged import flagged_shares
from saliency_pipeline.shards.reader import ShardFolder
from tests.shards.examples import header, of_methods, rows, write


def test_zero_and_constant_maps_are_counted_by_class(tmp_path):
    whole = rows(6)
    whole.labels = np.array([0, 0, 0, 0, 1, -1])
    whole.maps["gradcam"][:2] = 0
    whole.maps["gradcam"][2] = 3
    pairs = ShardFolder(write(tmp_path / "a.h5", header(), whole))
    assert flagged_shares(pairs, "gradcam") == [
        {"class": "cat", "images": 4, "zero": 0.5, "constant": 0.75},
        {"class": "dog", "images": 1, "zero": 0.0, "constant": 0.0},
        {"class": "Vögel", "images": 0, "zero": None, "constant": None},
    ]


def test_a_map_that_is_not_stored_is_not_counted(tmp_path):
    pairs = ShardFolder(of_methods(tmp_path / "a.h5", {"eigencam": {"class_agnostic": True}, "gradcam": {}}, targets=2))
    assert flagged_shares(pairs, None) is None
    assert flagged_shares(pairs, "eigencam", 1) is None
    assert flagged_shares(pairs, "gradcam", 1) is not None
