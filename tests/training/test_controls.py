"""Control maps: what each takes away, and that it takes away nothing else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.batches import PairDataset
from saliency_pipeline.training.controls import center_prior, partners, shuffle_cells
from tests.training.examples import labelled

labels = st.lists(st.integers(-1, 3), min_size=2, max_size=40).filter(
    lambda values: values.count(values[0]) < len(values)
)


@given(labels, st.integers(0, 2**32 - 1))
def test_a_partner_is_never_of_the_same_class(values: list[int], seed: int) -> None:
    own = np.array(values)
    found = partners(own, seed)
    assert found.dtype == np.int64
    assert np.all((own[found] != own) | (own == -1))
    assert np.all(found != np.arange(len(own)))
    np.testing.assert_array_equal(found, partners(own, seed))


@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 99))
def test_every_map_is_used_once_where_that_can_be(classes: int, each: int, seed: int) -> None:
    own = np.repeat(np.arange(classes), each)
    assert sorted(partners(own, seed).tolist()) == list(range(len(own)))


def test_partners_come_from_all_other_classes() -> None:
    """A map that told which class an image is not would be no control but for that one class."""
    own = np.repeat(np.arange(4), 100)
    found = own[partners(own, 0)]
    for label in range(4):
        counts = np.bincount(found[own == label], minlength=4)
        assert counts[label] == 0
        assert all(15 < count < 55 for other, count in enumerate(counts.tolist()) if other != label)


def test_a_class_of_more_than_half_takes_maps_twice() -> None:
    own = np.array([0] * 7 + [1, 2])
    assert set(partners(own, 0)[:7].tolist()) <= {7, 8}


def test_one_class_has_no_other() -> None:
    with pytest.raises(SalpipeError, match="images of two classes or more"):
        partners(np.zeros(4, np.int64), 0)


def test_the_centre_prior_is_highest_in_the_middle_and_the_same_all_round() -> None:
    bump = center_prior(5, 9)
    assert bump.shape == (5, 9)
    assert bump.max() == bump[2, 4] == 1
    np.testing.assert_allclose(bump, bump[::-1])
    np.testing.assert_allclose(bump, bump[:, ::-1])
    assert np.all(np.diff(bump[2, :5]) > 0)


def test_shuffled_maps_hold_their_own_values() -> None:
    maps = np.random.default_rng(0).random((3, 4, 6), dtype=np.float32)
    shuffled = shuffle_cells(maps, np.array([5, 9, 5]), seed=1)
    np.testing.assert_array_equal(np.sort(shuffled.reshape(3, -1)), np.sort(maps.reshape(3, -1)))
    assert not np.array_equal(shuffled, maps)
    # an image's shuffle depends on the image alone
    again = shuffle_cells(maps[2:], np.array([5]), seed=1)
    np.testing.assert_array_equal(again[0], shuffled[2])
    assert not np.array_equal(shuffle_cells(maps[2:], np.array([5]), seed=2), again)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return ShardFolder(labelled(tmp_path_factory.mktemp("controls") / "shards", 48))


def maps(folder: ShardFolder, control: str, indices: np.ndarray, seed: int = 3) -> np.ndarray:
    rows = np.arange(4, 44)
    found = PairDataset(folder, rows, "gradcam", maps=control, seed=seed).__getitems__(indices).maps
    assert found is not None
    assert found.dtype == np.float32
    return found


def test_a_mismatched_map_is_the_partners_own(folder: ShardFolder) -> None:
    rows = np.arange(4, 44)
    dataset = PairDataset(folder, rows, "gradcam", maps="mismatched", seed=3)
    own = maps(folder, "own", np.arange(40))
    found = maps(folder, "mismatched", np.arange(40))
    chosen = partners(dataset.labels, 3)
    np.testing.assert_array_equal(found, own[chosen])
    assert np.all(dataset.labels[chosen] != dataset.labels)


@pytest.mark.parametrize("control", ["own", "mismatched", "center-prior", "uniform", "shuffled-pixels"])
def test_what_an_image_gets_does_not_depend_on_what_is_read_with_it(folder: ShardFolder, control: str) -> None:
    whole, order = maps(folder, control, np.arange(40)), np.array([7, 3, 39, 3])
    np.testing.assert_array_equal(maps(folder, control, order), whole[order])


def test_a_prior_and_a_uniform_map_say_nothing_of_the_image(folder: ShardFolder) -> None:
    np.testing.assert_array_equal(maps(folder, "center-prior", np.arange(40))[17], center_prior(7, 7))
    assert np.ptp(maps(folder, "uniform", np.arange(40))) == 0


def test_images_and_labels_are_the_same_under_every_control(folder: ShardFolder, tmp_path: Path) -> None:
    rows = np.arange(4, 44)
    own = PairDataset(folder, rows, "gradcam").__getitems__(np.arange(40))
    other = PairDataset(folder, rows, "gradcam", maps="mismatched").__getitems__(np.arange(40))
    np.testing.assert_array_equal(own.images, other.images)
    np.testing.assert_array_equal(own.labels, other.labels)
