"""Control maps: the information that each removes, and that it removes nothing else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import MAPS, NORMALIZATIONS
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.controls import center_prior, partners, partners_of_class, shuffle_cells
from tests.training.examples import labeled


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_a_partner_is_another_image_and_every_map_is_used_once(count: int, seed: int) -> None:
    chosen = partners(count, seed)
    assert chosen.dtype == np.int64
    assert np.all(chosen != np.arange(count))
    assert sorted(chosen.tolist()) == list(range(count))
    np.testing.assert_array_equal(chosen, partners(count, seed))


def test_with_two_classes_a_partner_does_not_reveal_the_label() -> None:
    """With two classes, a partner that is always of another class reveals the label."""
    labels = np.arange(400) % 2
    same = np.mean([(labels[partners(400, seed)] == labels).mean() for seed in range(20)])
    assert same == pytest.approx(199 / 399, abs=0.02)


def test_one_image_alone_has_no_partner() -> None:
    with pytest.raises(SalpipeError, match="there is only one image; add images"):
        partners(1, 0)


@given(st.lists(st.integers(-1, 3), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_a_partner_of_the_same_class_is_another_image_of_it(values: list[int], seed: int) -> None:
    labels = np.array(values)
    chosen = partners_of_class(labels, seed)
    assert np.all(chosen != np.arange(len(labels)))
    alone = np.array([values.count(value) == 1 for value in values])
    assert np.all((labels[chosen] == labels) | alone)
    for label in set(values):
        if values.count(label) > 1:
            places = np.flatnonzero(labels == label)
            assert sorted(chosen[places].tolist()) == places.tolist()


def test_the_center_prior_is_highest_in_the_middle_and_the_same_all_round() -> None:
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
    return ShardFolder(labeled(tmp_path_factory.mktemp("controls") / "shards", 48))


def maps(folder: ShardFolder, control: str, indices: np.ndarray, seed: int = 3) -> np.ndarray:
    rows = np.arange(4, 44)
    result = PairDataset(folder, rows, "gradcam", maps=control, seed=seed).__getitems__(indices).maps
    assert result is not None
    assert result.dtype == np.float32
    return result


def test_a_mismatched_map_is_the_partners_own(folder: ShardFolder) -> None:
    rows = np.arange(4, 44)
    dataset = PairDataset(folder, rows, "gradcam", maps="mismatched", seed=3)
    own = maps(folder, "own", np.arange(40))
    result = maps(folder, "mismatched", np.arange(40))
    np.testing.assert_array_equal(result, own[partners(40, 3)])
    of_class = maps(folder, "mismatched-same-class", np.arange(40))
    np.testing.assert_array_equal(of_class, own[partners_of_class(dataset.labels, 3)])


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_a_uniform_map_is_1_everywhere_when_the_network_reads_it(folder: ShardFolder, how: str) -> None:
    dataset = PairDataset(folder, np.arange(6), "gradcam", maps="uniform")
    for augment in ((), ("crop", "flip")):
        batch = Prefetcher(dataset, Transform(how, augment)).prepare(np.arange(6), 0)
        assert batch.maps is not None
        np.testing.assert_allclose(batch.maps.numpy(), 1, atol=1e-6)


@pytest.mark.parametrize("control", MAPS)
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
