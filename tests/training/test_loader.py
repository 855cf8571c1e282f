"""`PairLoader`: the global order in every number of processes, and positions that are saved and restored."""

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data.batches import Batch, PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.order import epoch_batches, epoch_order
from saliency_pipeline.training.loader import PairLoader
from saliency_pipeline.training.shuffle import Shuffle
from tests.training.examples import labeled

IMAGES, SIZE = 42, 8
ROWS = np.arange(3, 3 + IMAGES)
BATCHES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return ShardFolder(labeled(tmp_path_factory.mktemp("shards") / "shards", 48, 4))


def loader(folder: ShardFolder, rows: Any = ROWS, **options: Any) -> PairLoader:
    transform = Transform(augment=("crop", "flip"), training=True, seed=5)
    pairs = Prefetcher(PairDataset(folder, rows, "gradcam"), transform)
    return PairLoader(pairs, **{"batch_size": SIZE, "seed": 7, **options})


def positions(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.positions.tolist() for batch in batches]


def test_epochs_follow_one_another_in_the_order_of_training(folder: ShardFolder) -> None:
    own = loader(folder)
    assert len(own) == BATCHES
    for epoch in range(2):
        assert own.epoch == epoch
        wanted = epoch_batches(epoch_order(IMAGES, 7, epoch), SIZE)
        assert positions(own) == [ROWS[indices].tolist() for indices in wanted]


@pytest.mark.parametrize("shuffle", [Shuffle(), Shuffle(4, 3), Shuffle(0, 2)])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch(folder: ShardFolder, world: int, shuffle: Shuffle) -> None:
    whole = positions(loader(folder, shuffle=shuffle))
    parts = [positions(loader(folder, shuffle=shuffle, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(whole):
        assert [part[number] for part in parts] == [batch[rank::world] for rank in range(world)]


@pytest.mark.parametrize("taken", [0, 1, BATCHES - 1, BATCHES, BATCHES + 2])
def test_a_restored_loader_gives_the_batches_that_were_left(folder: ShardFolder, taken: int) -> None:
    """Saved while the loop runs, and restored in another number of processes."""
    whole, own = loader(folder), loader(folder)
    batches = [*whole, *whole, *whole]
    state, count = own.state_dict(), 0
    while count < taken:
        for _ in islice(own, taken - count):
            count += 1
            state = own.state_dict()
    stored = json.loads(json.dumps(state))
    again = loader(folder)
    again.load_state_dict(stored)
    epoch = taken // BATCHES
    assert (again.epoch, again.step) == (epoch, taken % BATCHES)
    for ours, theirs in zip(again, batches[taken : (epoch + 1) * BATCHES], strict=True):
        assert ours.images.equal(theirs.images)
        assert ours.maps is not None
        assert theirs.maps is not None
        assert ours.maps.equal(theirs.maps)
    half = loader(folder, rank=1, world=2)
    half.load_state_dict(stored)
    assert positions(half) == [part[1::2] for part in positions(batches[taken : (epoch + 1) * BATCHES])]


def test_a_loop_that_is_left_goes_on_where_it_was(folder: ShardFolder) -> None:
    own, whole = loader(folder), positions(loader(folder))
    for _ in own:
        break
    assert own.step == 1
    assert positions(own) == whole[1:]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 8}, "seed"),
        ({"batch_size": 7}, "batch size"),
        ({"shuffle": Shuffle(0, 2)}, "shuffle"),
        ({"rows": ROWS[::-1]}, "images"),
    ],
)
def test_a_state_of_another_order_is_refused(folder: ShardFolder, changed: dict[str, Any], name: str) -> None:
    with pytest.raises(SalpipeError, match=f"a loader's state with other {name}: make the loader as it was"):
        loader(folder).load_state_dict(loader(folder, **changed).state_dict())


def test_a_state_of_other_shards_is_refused(folder: ShardFolder) -> None:
    state = loader(folder).state_dict()
    assert state["shards"] == folder.identity
    with pytest.raises(SalpipeError, match="with other shards"):
        loader(folder).load_state_dict(state | {"shards": "another plan"})


@pytest.mark.parametrize("place", [{"step": BATCHES}, {"step": -1}, {"epoch": -1}, {"epoch": "1"}, {"step": None}])
def test_a_step_that_does_not_exist_is_refused(folder: ShardFolder, place: dict[str, Any]) -> None:
    with pytest.raises(SalpipeError, match="there is no such step"):
        loader(folder).load_state_dict(loader(folder).state_dict() | place)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2 processes: ranks are 0 to 1"),
        ({"batch_size": 0}, "batch size 0 and seed 7"),
        ({"seed": -1}, "batch size 8 and seed -1"),
    ],
)
def test_an_impossible_loader_is_refused(folder: ShardFolder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        loader(folder, **options)
