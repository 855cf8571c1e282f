"""Order of an epoch: a permutation of (seed, epoch) alone, even batches and disjoint rank slices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.data.order import epoch_batches, epoch_order, rank_slice

counts, seeds = st.integers(0, 3000), st.integers(0, 2**40)
blocks = st.none() | st.integers(1, 4000)


@given(counts, seeds, seeds, blocks)
def test_an_order_is_a_permutation_and_always_the_same(count, seed, epoch, block):
    order = epoch_order(count, seed, epoch, block)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    np.testing.assert_array_equal(order, epoch_order(count, seed, epoch, block))


def test_orders_never_change():
    """A run begun with another release must resume with the very same order."""
    assert epoch_order(8, seed=1, epoch=2).tolist() == [7, 1, 3, 0, 4, 2, 6, 5]
    assert epoch_order(8, seed=1, epoch=2, block=2).tolist() == [7, 2, 0, 1, 6, 3, 4, 5]


def test_seed_and_epoch_both_change_the_order():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    np.random.seed(3)
    assert tuple(epoch_order(50, 0, 0)) in orders


@pytest.mark.parametrize("block", [None, 10])
def test_every_row_comes_to_every_place_about_equally_often(block):
    """Chi-square of 100 × 100 counts over 4,000 epochs: 99² degrees of freedom, 5 standard deviations."""
    orders = np.stack([epoch_order(100, 7, epoch, block) for epoch in range(4000)])
    result = np.stack([np.bincount(column, minlength=100) for column in orders.T])
    chi_square, freedom = ((result - 40) ** 2 / 40).sum(), 99**2
    if block is None:
        assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)
    else:
        assert result.min() > 0


def test_a_block_shuffle_reads_few_blocks_at_a_time():
    order = epoch_order(10_000, seed=0, epoch=0, block=100)
    for start in range(0, 10_000, 800):
        window = order[start : start + 800]
        assert len(np.unique(window // 100)) == min(8, len(window) // 100)
        assert (np.diff(window) == 1).mean() < 0.05
    first = [len(np.unique(order[start : start + 32] // 100)) for start in range(0, 9600, 32)]
    assert np.mean(first) > 7
    assert np.unique(order[:800] // 100).tolist() != list(range(8))


def test_nonsense_is_refused():
    for arguments in [(5, -1, 0), (5, 0, -1), (5, 0, 0, 0)]:
        with pytest.raises(SalpipeError, match=r"negative|at least 1"):
            epoch_order(*arguments)
    with pytest.raises(SalpipeError, match="batch size 0"):
        epoch_batches(np.arange(3), 0)


@given(counts, st.integers(1, 200))
def test_batches_are_even_and_together_the_order(count, batch_size):
    order = epoch_order(count, 0, 0)
    batches = epoch_batches(order, batch_size)
    np.testing.assert_array_equal(np.concatenate([*batches, np.array([], np.int64)]), order)
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == -(-count // batch_size)
    assert not sizes or (max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1)


@given(counts, st.integers(1, 200), st.integers(1, 9))
def test_ranks_share_each_batch_without_overlap(count, batch_size, world):
    for batch in epoch_batches(epoch_order(count, 1, 1), batch_size):
        slices = [rank_slice(batch, rank, world) for rank in range(world)]
        assert sorted(np.concatenate(slices).tolist()) == sorted(batch.tolist())
        sizes = [len(part) for part in slices]
        assert max(sizes) - min(sizes) <= 1


def test_a_wide_window_mixes_many_classes() -> None:
    """Data stored class by class: a window of thousands of blocks gives batches nearly as mixed as a full shuffle."""
    labels = np.arange(300_000) // 1_300
    narrow, wide, full = (
        np.mean([len(np.unique(labels[batch])) for batch in epoch_batches(order, 256)[:50]])
        for order in (
            epoch_order(len(labels), 0, 0, 64, 8),
            epoch_order(len(labels), 0, 0, 64, 1_000),
            epoch_order(len(labels), 0, 0),
        )
    )
    assert narrow < 10
    assert wide > 0.9 * full
