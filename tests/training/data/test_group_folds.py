"""Folds of persons, scenes and patients: never divided, all used, and as many images of each class as groups allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.data.split import Together, choose_split, evaluation_rows

CLASSES = ("cat", "dog", "owl")


def validation_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int = 0) -> list[np.ndarray]:
    """The validation images of every fold, after checks that hold for all folds."""
    splits = np.full(len(labels), -1, np.int8)
    options = {"together": Together(groups, True), "folds": folds, "seed": seed}
    parts = []
    for fold in range(1, folds + 1):
        split = choose_split(labels, splits, CLASSES, fold=fold, **options)
        assert not set(groups[split.train]) & set(groups[split.validation])
        assert sorted([*split.train, *split.validation]) == list(range(len(labels)))
        assert (np.diff(split.train) > 0).all()
        assert evaluation_rows(labels, splits, "validation", classes=CLASSES, fold=fold, **options).tolist() == (
            split.validation.tolist()
        )
        parts.append(split.validation)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    return parts


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=12, max_size=30),
    folds=st.integers(2, 4),
    mixed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_group_is_divided_and_all_images_are_used(sizes: list[int], folds: int, mixed: bool, seed: int) -> None:
    """Images of any number of groups, of one class each or of several; in an order that has nothing to do with them."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = random.integers(0, 3, len(groups)) if mixed else groups % 3
    labels[[int(np.flatnonzero(groups == group)[0]) for group in range(len(sizes))]] = np.arange(len(sizes)) % 3
    order = random.permutation(len(groups))
    validation_folds(labels[order], 1000 - groups[order], folds, seed)


def test_folds_are_balanced_in_images_and_not_in_groups() -> None:
    """Ten persons of each class with 1 to 30 images: split as if equal, folds are up to several times as large."""
    sizes = [1, 2, 3, 4, 5, 20, 22, 25, 28, 30]
    groups = np.repeat(np.arange(30), sizes * 3)
    labels = groups // 10
    counts = np.array([np.bincount(labels[part], minlength=3) for part in validation_folds(labels, groups, 5)])
    assert counts.sum(axis=0).tolist() == [140, 140, 140]
    assert counts.min() >= 25
    assert counts.max() <= 31
    splits = np.full(len(labels), -1, np.int8)
    as_if_equal = [
        np.bincount(
            labels[choose_split(labels, splits, CLASSES, together=Together(groups), folds=5, fold=fold).validation]
        )
        for fold in range(1, 6)
    ]
    assert np.ptp(as_if_equal) > 2 * np.ptp(counts)


def test_scenes_of_several_classes_are_split_by_all_of_their_images() -> None:
    random = np.random.default_rng(3)
    groups = np.sort(random.integers(0, 40, 400))
    labels = random.integers(0, 3, 400)
    counts = np.array([np.bincount(labels[part], minlength=3) for part in validation_folds(labels, groups, 4)])
    expected = np.bincount(labels) / 4
    assert (np.abs(counts - expected) <= 0.15 * expected).all()


def test_another_seed_splits_otherwise_and_the_same_alike() -> None:
    groups = np.repeat(np.arange(30), 4)
    groups[0] = 1
    labels = groups % 3
    first, again, other = (validation_folds(labels, groups, 3, seed)[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_equal_groups_of_one_class_are_split_as_duplicates_are() -> None:
    groups = np.repeat(np.arange(18), 2)
    labels, splits = groups % 3, np.full(36, -1, np.int8)
    for fold in (1, 2, 3):
        a, b = (
            choose_split(labels, splits, CLASSES, together=Together(groups, balanced), folds=3, fold=fold)
            for balanced in (True, False)
        )
        assert a.validation.tolist() == b.validation.tolist()


def test_too_few_groups_are_refused() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    splits = np.full(9, -1, np.int8)
    with pytest.raises(SalpipeError, match="has 1 group, too few for 2 folds; add groups or leave"):
        choose_split(labels, splits, CLASSES, together=Together(groups, True), folds=2, fold=1)
    labels = np.array([0, 2, 0, 1, 0, 1, 1, 2, 2])
    with pytest.raises(SalpipeError, match="has 2 groups, too few for 3 folds; use --folds 2 or fewer, or x"):
        choose_split(labels, splits, CLASSES, together=Together(groups, True, ", or x"), folds=3, fold=1)
