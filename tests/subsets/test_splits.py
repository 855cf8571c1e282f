"""How many images go into each part, and that duplicates stay together."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.subsets.selection import fractions
from saliency_pipeline.subsets.splits import class_totals, deal, deal_stable, part_totals

ARTICLE = [Fraction(18, 25), Fraction(9, 50), Fraction(1, 10)]


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def drawn(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


# sizes


@pytest.mark.parametrize("sizes", [(72, 18, 10), (72.0, 18.0, 10.0), (0.72, 0.18, 0.1), (7.2e1, 18, 10)])
def test_percentages_and_fractions_are_the_same(sizes):
    assert fractions(sizes) == tuple(ARTICLE)


def test_fractions_are_those_written_not_those_of_binary_numbers():
    assert fractions((0.1, 0.2, 0.7)) == (Fraction(1, 10), Fraction(1, 5), Fraction(7, 10))
    assert fractions((33.3, 33.3, 33.4)) == (Fraction(333, 1000), Fraction(333, 1000), Fraction(334, 1000))
    assert fractions((90, 0, 10)) == (Fraction(9, 10), 0, Fraction(1, 10))


def test_whole_numbers_of_another_sum_are_counts():
    assert fractions((8828, 2057, 1143)) is None
    assert fractions((2, 0)) is None


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((100,), "--split 100: give two numbers"),
        ((25, 25, 25, 25), "--split 25/25/25/25: give two numbers, training/validation, or three"),
        ((33.3, 33.3, 33.3), r"--split 33.3/33.3/33.3: the numbers sum to 99.9; fractions must sum to 100 or 1"),
        ((0, 0), "--split 0/0: the numbers sum to 0;"),
        ((110, -10), "each number must lie between 0 and 1,000,000,000"),
        ((float("nan"), 1), "each number must lie between"),
        ((10**12, 1), "each number must lie between"),
    ],
)
def test_sizes_that_are_neither_are_errors(sizes, reason):
    with pytest.raises(SalpipeError, match=reason):
        fractions(sizes)


# totals


@pytest.mark.parametrize(
    ("images", "totals"),
    [
        (100, [72, 18, 10]),
        (7, [5, 1, 1]),  # 5.04, 1.26, 0.7
        (11, [8, 2, 1]),  # 7.92, 1.98, 1.1
        (12_028, [8_660, 2_165, 1_203]),  # 8,660.16, 2,165.04, 1,202.8
        (1, [1, 0, 0]),
        (0, [0, 0, 0]),
    ],
)
def test_totals_are_largest_remainders(images, totals):
    assert part_totals(images, ARTICLE) == totals


def test_of_equal_remainders_the_earlier_part_gets_the_image():
    assert part_totals(5, [Fraction(1, 2), Fraction(1, 2)]) == [3, 2]


def test_classes_too_small_for_every_part_take_turns_by_lot():
    # of 20 images 14 train, 4 validate and 2 test: half a test image a class, for the classes with the lowest lots
    assert class_totals(whole(5, 5, 5, 5), [14, 4, 2], drawn(30, 10, 40, 20)).tolist() == [
        [4, 1, 0],
        [3, 1, 1],
        [4, 1, 0],
        [3, 1, 1],
    ]


def test_the_class_with_the_largest_remainder_comes_first_whatever_its_lot():
    # test: 2 of 10 images, so 0.6, 1.0 and 0.4 a class
    assert class_totals(whole(3, 5, 2), [8, 0, 2], drawn(9, 5, 1)).tolist() == [[2, 0, 1], [4, 0, 1], [2, 0, 0]]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 100), st.integers(0, 100), st.data())
def test_totals_of_classes_add_up_both_ways_and_are_near_their_proportion(sizes, train, test, data):
    weights, images = np.array(sizes, np.int64), sum(sizes)
    share = Fraction(train, max(train + test, 100)), Fraction(test, max(train + test, 100))
    totals = part_totals(images, [share[0], 1 - sum(share), share[1]])
    lots = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(sizes), max_size=len(sizes)))
    found = class_totals(weights, totals, np.array(lots, np.uint64))
    assert (found >= 0).all()
    assert found.sum(1).tolist() == sizes
    assert found.sum(0).tolist() == totals
    exact = weights[:, None] * np.array(totals) / max(images, 1)
    assert (np.abs(found - exact) < [2, 2, 1]).all()


# dealing


@st.composite
def units(draw, largest=4):
    """Strata, sizes and lots of units, and lots of classes."""
    classes = draw(st.integers(1, 4))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.integers(1, largest), st.integers(0, 2**64 - 1)), max_size=60
        )
    )
    columns = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1], drawn(*(row[2] for row in rows)), drawn(*range(classes))


@given(units(largest=1), st.sampled_from([ARTICLE, [Fraction(1, 2)] * 2, [Fraction(9, 10), 0, Fraction(1, 10)]]))
def test_single_images_are_dealt_exactly(found, shares):
    strata, sizes, lots, class_lots = found
    totals = part_totals(len(sizes), shares)
    parts = deal(strata, sizes, lots, totals, class_lots)
    counts = np.zeros((len(class_lots), len(shares)), np.int64)
    np.add.at(counts, (strata, parts), 1)
    weights = np.bincount(strata, minlength=len(class_lots))
    assert counts.tolist() == class_totals(weights, totals, class_lots).tolist()


@given(units(), st.sampled_from([ARTICLE, [Fraction(1, 3), Fraction(1, 3), Fraction(1, 3)]]))
def test_units_of_several_images_spoil_the_counts_by_less_than_their_size(found, shares):
    strata, sizes, lots, class_lots = found
    totals = part_totals(int(sizes.sum()), shares)
    parts = deal(strata, sizes, lots, totals, class_lots)
    counts = np.zeros((len(class_lots), len(shares)), np.int64)
    np.add.at(counts, (strata, parts), sizes)
    weights = np.zeros(len(class_lots), np.int64)
    np.add.at(weights, strata, sizes)
    wanted = class_totals(weights, totals, class_lots)
    for label in range(len(class_lots)):
        largest = int(sizes[strata == label].max(initial=1))
        assert (counts[label] - wanted[label] < largest).all()
        assert (wanted[label] - counts[label] <= (len(shares) - 1) * (largest - 1)).all()
        if ((strata == label) & (sizes == 1)).sum() >= len(shares) * (largest - 1):
            assert counts[label].tolist() == wanted[label].tolist()


def test_single_images_make_up_for_the_units_dealt_before_them():
    sizes = whole(*[3] * 10, *[1] * 70)
    parts = deal(np.zeros(80, np.int64), sizes, np.arange(80, dtype=np.uint64) * 2**57, [72, 18, 10], drawn(0))
    assert np.bincount(parts, sizes).tolist() == [72, 18, 10]


@pytest.mark.parametrize("seed", range(20))
def test_larger_units_are_dealt_before_smaller_ones_take_their_place(seed):
    lots = np.random.default_rng(seed).integers(0, 2**64, 2, np.uint64)
    assert deal(whole(0, 0), whole(2, 4), lots, [4, 2], drawn(0)).tolist() == [1, 0]


def test_what_one_part_has_too_many_training_has_too_few():
    assert deal(whole(0, 0), whole(3, 1), drawn(0, 0), [1, 1, 2], drawn(0)).tolist() == [2, 1]


def test_units_of_several_images_go_to_every_part_with_its_odds():
    # were they always dealt to the part that lacks most, no duplicate would ever be tested on
    count = 2_000
    lots = np.random.default_rng(0).integers(0, 2**64, count, np.uint64)
    sizes = np.where(np.arange(count) < 200, 2, 1)
    parts = deal(np.zeros(count, np.int64), sizes, lots, part_totals(2_200, ARTICLE), drawn(0))
    assert np.bincount(parts[:200]) == pytest.approx(np.array([144, 36, 20]), abs=4 * (200 * 0.72 * 0.28) ** 0.5)
    assert np.bincount(parts[:200])[2] > 5


# the stable deal


def test_a_stable_part_is_an_interval_of_lots():
    edges = [0, int(0.72 * 2**64) - 2**12, int(0.72 * 2**64) + 2**12, int(0.9 * 2**64) + 2**12, 2**64 - 1]
    assert deal_stable(drawn(*edges), ARTICLE).tolist() == [0, 0, 1, 2, 2]
    assert deal_stable(drawn(*edges), [ARTICLE[0], 1 - ARTICLE[0]]).tolist() == [0, 0, 1, 1, 1]


def test_the_last_lot_of_a_stable_part_is_the_last_below_its_fraction():
    thirds = [Fraction(1, 3), Fraction(2, 3)]
    assert deal_stable(drawn(2 * (2**63 // 3), 2 * (2**63 // 3 + 1)), thirds).tolist() == [0, 1]


def test_a_stable_part_of_size_0_is_empty_to_the_last_lot():
    lots = drawn(0, 2**64 - 1)
    assert deal_stable(lots, [Fraction(1), Fraction(0), Fraction(0)]).tolist() == [0, 0]
    assert deal_stable(lots, [Fraction(0), Fraction(1), Fraction(0)]).tolist() == [1, 1]
