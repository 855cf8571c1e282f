"""Training and validation images: stored splits, folds, scarce data, and every one-line refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.training.config import PARTS
from saliency_pipeline.training.data.split import Together, choose_split, evaluation_rows

CLASSES = ("cat", "dog", "tea pot")
COUNTS = (12, 30, 7)


def shuffled(counts: tuple[int, ...] = COUNTS, split: int = -1) -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return labels, np.full(len(labels), split, np.int8)


def stored() -> tuple[np.ndarray, np.ndarray]:
    """All four splits and some unlabeled images, by position."""
    labels = np.array([0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1])
    return labels, np.repeat(np.array([0, 1, 2, -1], np.int8), 4)


def test_the_stored_splits_hold() -> None:
    split = choose_split(*stored(), CLASSES)
    assert split.train.tolist() == [0, 1, 2]
    assert split.validation.tolist() == [4, 5, 6]
    assert split.train.dtype == split.validation.dtype == np.int64


def test_folds_take_all_labeled_images_but_the_test_split() -> None:
    labels, splits = stored()
    pool = [0, 1, 2, 4, 5, 6, 12, 13, 14]
    splits_of_folds = [choose_split(labels, splits, CLASSES, folds=3, fold=fold, seed=5) for fold in (1, 2, 3)]
    for part in splits_of_folds:
        assert sorted([*part.train, *part.validation]) == pool
        assert labels[part.validation].tolist().count(0) == 1
    assert sorted(np.concatenate([part.validation for part in splits_of_folds])) == pool


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(5, 40), min_size=2, max_size=6),
    folds=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_folds_are_disjoint_whole_and_stratified(counts: list[int], folds: int, seed: int) -> None:
    labels, splits = shuffled(tuple(counts))
    names = tuple("abcdef"[: len(counts)])
    validated = []
    for fold in range(1, folds + 1):
        split = choose_split(labels, splits, names, folds=folds, fold=fold, seed=seed)
        assert not set(split.train) & set(split.validation)
        assert len(split.train) + len(split.validation) == len(labels)
        assert (np.diff(split.train) > 0).all()
        assert (np.diff(split.validation) > 0).all()
        for label, count in enumerate(counts):
            assert count // folds <= (labels[split.validation] == label).sum() <= -(-count // folds)
        validated += split.validation.tolist()
    assert sorted(validated) == list(range(len(labels)))


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 48), st.integers(0, 48)), max_size=12), seed=st.integers(0, 2**32 - 1))
def test_duplicates_lie_in_one_fold(pairs: list[tuple[int, int]], seed: int) -> None:
    labels, splits = shuffled((12, 30, 20))
    groups = np.arange(len(labels))
    for one, other in pairs:
        groups[groups == groups[other]] = groups[one]
    validated = []
    for fold in (1, 2):
        split = choose_split(labels, splits, CLASSES, together=Together(groups), folds=2, fold=fold, seed=seed)
        assert not set(groups[split.train]) & set(groups[split.validation])
        assert evaluation_rows(
            labels, splits, "validation", classes=CLASSES, together=Together(groups), folds=2, fold=fold, seed=seed
        ).tolist() == (split.validation.tolist())
        validated += split.validation.tolist()
    assert sorted(validated) == list(range(len(labels)))


def test_without_duplicates_folds_are_as_without_a_search() -> None:
    labels, splits = shuffled()
    groups = np.random.default_rng(1).permutation(len(labels))
    for fold in (1, 2, 3):
        looked, not_looked = (
            choose_split(labels, splits, CLASSES, together=Together(members), folds=3, fold=fold)
            for members in (groups, None)
        )
        assert looked.validation.tolist() == not_looked.validation.tolist()


def test_copies_do_not_fill_folds() -> None:
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 2, 3, 4, 5])
    with pytest.raises(SalpipeError, match="class 'cat' has 2 different images, too few for 3 folds; use --folds 2"):
        choose_split(labels, np.full(6, -1, np.int8), ("cat", "dog"), together=Together(groups), folds=3, fold=1)


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    labels, splits = shuffled()

    def validation(seed: int) -> list[int]:
        np.random.default_rng().random(3)
        return choose_split(labels, splits, CLASSES, folds=3, fold=2, seed=seed).validation.tolist()

    assert validation(1) == validation(1)
    assert validation(1) != validation(2)


@pytest.mark.parametrize("seed", [0, 7])
def test_draws_per_class_are_nested_and_leave_the_validation_alone(seed: int) -> None:
    labels, splits = shuffled()
    whole = choose_split(labels, splits, CLASSES, folds=3, fold=1, seed=seed)
    before: set[int] = set()
    for k in range(1, 25):
        split = choose_split(labels, splits, CLASSES, folds=3, fold=1, per_class=k, seed=seed)
        assert np.bincount(labels[split.train]).tolist() == [
            min(k, count) for count in np.bincount(labels[whole.train])
        ]
        assert before <= set(split.train) <= set(whole.train)
        assert (np.diff(split.train) > 0).all()
        assert split.validation.tolist() == whole.validation.tolist()
        before = set(split.train)
    assert before == set(whole.train)


@pytest.mark.parametrize("seed", [0, 7])
def test_limits_are_nested_and_stratified(seed: int) -> None:
    labels, splits = shuffled((40, 200, 3), split=0)
    splits[::10] = 1
    whole = choose_split(labels, splits, CLASSES, seed=seed)
    shares = np.bincount(labels[whole.train]) / len(whole.train)
    before: set[int] = set()
    for limit in range(3, len(whole.train) + 2):
        split = choose_split(labels, splits, CLASSES, limit=limit, seed=seed)
        assert len(split.train) == min(limit, len(whole.train))
        assert before <= set(split.train)
        assert split.validation.tolist() == whole.validation.tolist()
        counts = np.bincount(labels[split.train], minlength=3)
        assert (counts >= 1).all()
        # within an image of its share, and of the one that each class has at least
        assert (abs(counts - limit * shares) <= 2).all()
        before = set(split.train)


def test_the_draws_of_two_seeds_differ() -> None:
    labels, splits = shuffled(split=0)
    splits[:10] = 1
    draws = [choose_split(labels, splits, CLASSES, per_class=3, seed=seed).train.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_draw_is_the_same_for_ever() -> None:
    labels = np.arange(30) % 3
    splits = (np.arange(30) < 6).astype(np.int8)
    assert choose_split(labels, splits, CLASSES, per_class=2, seed=3).train.tolist() == [7, 9, 12, 20, 23, 28]


def test_a_limit_comes_after_the_draw_per_class() -> None:
    labels, splits = shuffled(split=0)
    splits[:10] = 1
    few = choose_split(labels, splits, CLASSES, per_class=4).train
    both = choose_split(labels, splits, CLASSES, per_class=4, limit=6).train
    assert set(both) < set(few)
    assert np.bincount(labels[both]).tolist() == [2, 2, 2]


def test_more_per_class_or_in_all_than_there_are_is_fine() -> None:
    labels, splits = shuffled(split=0)
    splits[:10] = 1
    assert len(choose_split(labels, splits, CLASSES, per_class=1000, limit=10**6).train) == len(labels) - 10


def test_one_image_a_class_is_enough_to_train_and_one_image_to_validate() -> None:
    split = choose_split(np.array([0, 1, 1]), np.array([0, 0, 1], np.int8), ("a", "b"))
    assert (split.train.tolist(), split.validation.tolist()) == ([0, 1], [2])


REFUSED = {
    "no validation split": (
        shuffled(split=0),
        {},
        r"no labeled image in a validation split; use --folds 5 --fold 1",
    ),
    "no training split": (shuffled(split=1), {}, r"no labeled image in a training split; use --folds 5 --fold 1"),
    "no split at all": (shuffled(), {}, r"use --folds 5 --fold 1"),
    "unlabeled": ((np.full(4, -1), np.zeros(4, np.int8)), {}, r"no image has a label; .* one sub-folder per class"),
    "no images": ((np.zeros(0, np.int64), np.zeros(0, np.int8)), {}, r"no image has a label"),
    "fold without folds": (stored(), {"fold": 1}, r"--fold 1 needs the number of folds; add --folds 5"),
    "folds without fold": (stored(), {"folds": 3}, r"--folds 3 needs the fold that validates; add --fold 1"),
    "fold 0": (shuffled(), {"folds": 3, "fold": 0}, r"--fold 0: there are 3 folds; use 1 to 3"),
    "fold too high": (shuffled(), {"folds": 3, "fold": 4}, r"--fold 4: there are 3 folds; use 1 to 3"),
    "few images": (
        shuffled(),
        {"folds": 8, "fold": 1},
        r"class 'tea pot' has 7 images, too few for 8 folds; use --folds 7 or fewer",
    ),
    "one image in folds": (
        shuffled((5, 1, 5)),
        {"folds": 2, "fold": 1},
        r"class 'dog' has 1 image, too few for 2 folds; add images or leave the class out",
    ),
    "empty class": (
        (np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1], np.int8)),
        {},
        r"class 'tea pot' has no image to train on; add some",
    ),
    "two empty classes": (
        (np.array([1, 0, 2]), np.array([0, 1, 1], np.int8)),
        {},
        r"class 'cat' \(and 1 more\) has no image to train on",
    ),
    "empty class in folds": (
        shuffled((5, 0, 5)),
        {"folds": 2, "fold": 1},
        r"class 'dog' has no image to train on",
    ),
    "limit below classes": (stored(), {"limit": 2}, r"--limit 2: each of the 3 classes .*; use 3 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_with_a_remedy(case: str) -> None:
    (labels, splits), options, message = REFUSED[case]
    with pytest.raises(SalpipeError, match=message) as caught:
        choose_split(labels, splits, CLASSES, **options)
    assert "\n" not in str(caught.value)


def test_a_name_with_a_line_break_does_not_break_the_line() -> None:
    with pytest.raises(SalpipeError, match="no image to train on") as caught:
        choose_split(np.array([0, 0]), np.array([0, 1], np.int8), ("a", "b\nc"))
    assert "\n" not in str(caught.value)


def test_one_class_is_refused() -> None:
    with pytest.raises(SalpipeError, match=r"all labeled images are of class 'cat'; .* at least two classes"):
        choose_split(np.array([0, 0]), np.array([0, 1], np.int8), ("cat",))


@pytest.mark.parametrize("label", [-2, 3])
def test_labels_out_of_range_are_damage(label: int) -> None:
    labels, splits = stored()
    labels[5] = label
    with pytest.raises(IntegrityError, match=rf"image 5 has label {label}, but there are 3 classes; run 'salpipe ver"):
        choose_split(labels, splits, CLASSES)
    with pytest.raises(IntegrityError, match=r"image 5"):
        evaluation_rows(labels, splits, "all", classes=CLASSES)


def test_arrays_of_different_lengths_are_a_defect() -> None:
    with pytest.raises(ValueError, match="expected"):
        choose_split(np.zeros(3, np.int64), np.zeros(2, np.int8), CLASSES)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("train", [0, 1, 2]),
        ("validation", [4, 5, 6]),
        ("test", [8, 9, 10]),
        ("all", [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]),
    ],
)
def test_parts_to_evaluate(name: str, rows: list[int]) -> None:
    assert evaluation_rows(*stored(), name, classes=CLASSES).tolist() == rows


def test_the_folds_that_are_evaluated_are_those_of_training() -> None:
    labels, splits = stored()
    options = {"folds": 3, "fold": 2, "seed": 9}
    chosen = choose_split(labels, splits, CLASSES, per_class=1, **options)
    whole = choose_split(labels, splits, CLASSES, **options)

    def rows(name: str) -> list[int]:
        return evaluation_rows(labels, splits, name, classes=CLASSES, **options).tolist()

    assert rows("validation") == chosen.validation.tolist()
    assert rows("train") == whole.train.tolist()
    assert rows("test") == [8, 9, 10]
    assert len(rows("all")) == 12


def test_shards_of_test_images_alone_need_no_folds() -> None:
    labels, splits = np.array([0, 2, -1]), np.full(3, 2, np.int8)
    for name in ("test", "all"):
        assert evaluation_rows(labels, splits, name, classes=CLASSES, folds=5, fold=1).tolist() == [0, 1]
    with pytest.raises(SalpipeError, match="no image to train on"):
        evaluation_rows(labels, splits, "validation", classes=CLASSES, folds=5, fold=1)


def test_what_cannot_be_evaluated() -> None:
    labels, splits = stored()
    with pytest.raises(SalpipeError, match=r"--split dev: unknown; choose one of train, validation, test, all"):
        evaluation_rows(labels, splits, "dev", classes=CLASSES)
    splits[splits == 2] = 0
    with pytest.raises(
        SalpipeError,
        match=r"--split test: .* no labeled image there \(they have 3 without a split, 6 train, 3 validation\)",
    ):
        evaluation_rows(labels, splits, "test", classes=CLASSES)
    with pytest.raises(SalpipeError, match="no image has a label"):
        evaluation_rows(np.full(3, -1), np.zeros(3, np.int8), "all", classes=CLASSES)
    assert PARTS == ("train", "validation", "test", "all")


def test_shards_without_splits_are_evaluated_as_a_whole() -> None:
    labels, splits = shuffled()
    assert len(evaluation_rows(labels, splits, "all", classes=CLASSES)) == len(labels)
    # classes that are missing matter in training, not here
    assert evaluation_rows(labels[:1], splits[:1], "all", classes=CLASSES).tolist() == [0]
