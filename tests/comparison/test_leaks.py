"""Duplicates in comparisons: folds never divide them, and of splits that do a warning says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.comparison.compare import divided_groups
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ShardHeader
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.groups import find_groups
from saliency_pipeline.training.data.split import Together, choose_split
from tests.training.examples import CLASSES, MAPS, PROVENANCE, SIZE, TEST, TRAIN, VALIDATION, labeled_rows, store

COUNT = 24


def shards(path: Path, groups: dict[int, int], files: dict[int, int] | None = None, **splits: int) -> ShardFolder:
    """Images of which some are in groups and some have the bytes of others, in TRAIN by default."""
    rows = labeled_rows(COUNT)
    rows.splits[:] = TRAIN
    for image, split in splits.items():
        rows.splits[int(image.removeprefix("image"))] = split
    for image, other in (files or {}).items():
        rows.sha256[image] = rows.sha256[other]
    numbers = np.full(COUNT, -1, np.int64)
    numbers[list(groups)] = list(groups.values())
    header = ShardHeader("plan", PROVENANCE, CLASSES[:3], SIZE, "raw", MAPS, groups=bool(groups))
    return ShardFolder(store(path, header, replace(rows, groups=numbers if groups else ()), 2))


def duplicates(pairs: ShardFolder) -> np.ndarray:
    return find_groups(TrainConfig(), pairs).numbers


def warnings(pairs: ShardFolder, folds: int) -> list[str]:
    return divided_groups(pairs, find_groups(TrainConfig(), pairs), folds)


def test_near_duplicates_are_grouped_after_a_search_and_copies_always(tmp_path: Path) -> None:
    near = duplicates(shards(tmp_path / "near", {0: 0, 3: 0, 9: 4, 20: 4}))
    assert near[0] == near[3] != near[9] == near[20]
    assert len(set(near.tolist())) == COUNT - 2
    copies = duplicates(shards(tmp_path / "copies", {}, {3: 0, 20: 9}))
    assert copies[0] == copies[3] != copies[9] == copies[20]
    assert len(set(copies.tolist())) == COUNT - 2


@pytest.mark.parametrize("groups", [{}, {0: 0, 3: 0, 9: 4, 21: 4}])
def test_folds_do_not_divide_them(tmp_path: Path, groups: dict[int, int]) -> None:
    pairs = shards(tmp_path / "pairs", groups, {3: 0, 21: 9})
    for fold in (1, 2, 3, 4):
        split = choose_split(
            pairs.labels,
            pairs.splits,
            pairs.classes,
            together=Together(duplicates(pairs)),
            folds=4,
            fold=fold,
            seed=fold,
        )
        for one, other in ((0, 3), (9, 21)):
            assert (one in split.train) == (other in split.train)
    assert warnings(pairs, 4) == []


def test_splits_that_divide_them_are_warned_of(tmp_path: Path) -> None:
    groups = {0: 0, 3: 0, 9: 4, 21: 4}
    apart = shards(tmp_path / "apart", groups, image3=VALIDATION, image21=TEST, image5=VALIDATION)
    assert warnings(apart, 0)[0].startswith("4 images have duplicates in another split, so that")
    # folds are dealt of training and validation images, and leave alone those of the test
    assert warnings(apart, 4)[0].startswith("2 images have duplicates in another split, so that")
    assert warnings(shards(tmp_path / "together", groups, image5=TEST, image6=VALIDATION), 0) == []
