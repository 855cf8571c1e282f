"""Inner splits: a fifth of the training images, of each class, for choosing options without the fold's images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.data.split import choose_split, inner_split

CLASSES = ("cat", "dog", "tea pot")


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(10, 60), min_size=3, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_it_divides_the_training_images_by_class(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), counts))
    splits = np.full(len(labels), -1, np.int8)
    for fold in (1, 2, 3):
        outer = choose_split(labels, splits, CLASSES, folds=3, fold=fold, seed=seed)
        inner = choose_split(labels, splits, CLASSES, folds=3, fold=fold, seed=seed, inner=True)
        assert sorted([*inner.train, *inner.validation]) == outer.train.tolist()
        assert not set(inner.validation) & set(outer.validation)
        assert (np.diff(inner.train) > 0).all()
        assert (np.diff(inner.validation) > 0).all()
        for label in range(3):
            whole = int((labels[outer.train] == label).sum())
            assert abs((labels[inner.validation] == label).sum() - whole / 5) <= 0.6


def test_scarce_images_are_divided_after_they_are_chosen() -> None:
    labels = np.repeat(np.arange(3), 20)
    splits = np.zeros(60, np.int8)
    splits[::4] = 1
    outer = choose_split(labels, splits, CLASSES, per_class=5, seed=3)
    inner = choose_split(labels, splits, CLASSES, per_class=5, seed=3, inner=True)
    assert sorted([*inner.train, *inner.validation]) == outer.train.tolist()
    assert np.bincount(labels[inner.validation]).tolist() == [1, 1, 1]
    assert inner.pool == outer.pool


def test_groups_stay_together_and_seeds_differ() -> None:
    labels = np.repeat(np.arange(3), 30)
    groups = np.arange(90) // 3
    rows = np.arange(90)
    parts = [inner_split(rows, labels, CLASSES, groups, seed) for seed in range(5)]
    for train, validation in parts:
        assert not set(groups[train]) & set(groups[validation])
        assert np.bincount(labels[validation]).tolist() == [6, 6, 6]
    assert len({tuple(validation) for _, validation in parts}) > 1
    again = inner_split(rows, labels, CLASSES, groups, 0)
    assert again[1].tolist() == parts[0][1].tolist()


def test_a_class_of_one_group_is_refused() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(SalpipeError, match="class 'cat' has fewer than two different training images"):
        inner_split(np.arange(6), labels, CLASSES, np.array([0, 0, 2, 3, 4, 5]), 0)
