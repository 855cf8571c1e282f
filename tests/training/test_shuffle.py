"""`--shuffle`: orders of an epoch, and the note on a cache that is too small for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import PairDataset
from saliency_pipeline.training.data.order import epoch_order, shard_order
from saliency_pipeline.training.shuffle import ANY_ORDER, Shuffle, cache_note, choose_shuffle
from tests.training.examples import labeled

# of unequal shards, as where images were rejected
SHARDS = np.repeat(np.arange(12), [5, 8, 8, 1, 8, 8, 3, 8, 8, 8, 8, 7])


@pytest.mark.parametrize("window", [1, 3, 12, 50])
def test_a_window_holds_few_shards(window: int) -> None:
    order = shard_order(SHARDS, seed=4, epoch=2, window=window)
    assert sorted(order.tolist()) == list(range(len(SHARDS)))
    np.testing.assert_array_equal(order, shard_order(SHARDS, seed=4, epoch=2, window=window))
    # a shard appears in one window only: the others before its last row are of the same window
    first = {shard: np.flatnonzero(SHARDS[order] == shard)[0] for shard in range(12)}
    last = {shard: np.flatnonzero(SHARDS[order] == shard)[-1] for shard in range(12)}
    for row in range(len(order)):
        assert sum(first[shard] <= row <= last[shard] for shard in range(12)) <= window


def test_orders_differ_by_seed_and_epoch_and_mix_shards_and_rows() -> None:
    orders = {tuple(shard_order(SHARDS, seed, epoch, 3)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    starts = np.array([SHARDS[shard_order(SHARDS, 0, epoch, 1)[0]] for epoch in range(600)])
    assert np.bincount(starts, minlength=12).min() > 20
    rows = np.array([shard_order(np.zeros(6, int), 0, epoch, 1)[0] for epoch in range(600)])
    assert np.bincount(rows, minlength=6).min() > 60


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(SalpipeError, match="window 0"):
        shard_order(SHARDS, 0, 0, 0)
    for text in ("block", "blocks=0", "blocks=", "full=3"):
        with pytest.raises(OptionError, match=f"--shuffle {text}: use auto, full, blocks or blocks=N"):
            TrainConfig(shuffle=text)


def test_orders_by_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder(labeled(tmp_path / "shards", 48, 4))
    dataset = PairDataset(folder, np.arange(3, 45), None)
    choices = {text: choose_shuffle(folder, 42, TrainConfig(shuffle=text)) for text in ("auto", "full", "blocks=2")}
    assert choices == {"auto": ANY_ORDER, "full": ANY_ORDER, "blocks=2": Shuffle(0, 2)}
    np.testing.assert_array_equal(ANY_ORDER.order(dataset, 1, 2), epoch_order(42, 1, 2))
    np.testing.assert_array_equal(Shuffle(4, 3).order(dataset, 1, 2), epoch_order(42, 1, 2, 4, 3))
    order = Shuffle(0, 2).order(dataset, 1, 2)
    assert sorted(order.tolist()) == list(range(42))
    half = set((dataset.rows[order[: len(order) // 3]] // 12).tolist())
    assert len(half) == 2
    monkeypatch.setattr("saliency_pipeline.training.shuffle.usable_memory", lambda: 1000)
    assert choose_shuffle(folder, 42, TrainConfig()) == Shuffle(64, 8)
    assert choose_shuffle(folder, 42, TrainConfig(shuffle="full")) == ANY_ORDER


def test_a_cache_that_is_too_small_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SimpleNamespace(bytes=100 << 20)
    pairs: Any = SimpleNamespace(shard_numbers=lambda rows: rows // 10, objects=lambda numbers: [sizes] * len(numbers))
    rows = np.arange(100)
    limit = 1000 << 20
    monkeypatch.setattr("saliency_pipeline.training.shuffle.ShardCache", lambda: SimpleNamespace(limit=lambda: limit))
    assert cache_note(pairs, rows, ANY_ORDER) is None
    limit = 350 << 20
    note = cache_note(pairs, rows, ANY_ORDER)
    assert note is not None
    assert note.startswith("an epoch reads 1000M of shards, and the cache holds 350M: shards are fetched again and")
    assert "raise --cache-size, or use --shuffle blocks=2, with" in note
    assert cache_note(pairs, rows, Shuffle(0, 4)) == note
    assert str(cache_note(pairs, rows, Shuffle(0, 2))).endswith("350M: every epoch fetches each shard again")
    assert (
        cache_note(SimpleNamespace(shard_numbers=lambda rows: rows, objects=lambda numbers: []), rows, ANY_ORDER)
        is None
    )
