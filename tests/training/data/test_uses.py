"""Uses in batches: identities with the baseline's batches, views, frames larger than the network's, empty maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ShardHeader
from saliency_pipeline.training.config import AUGMENTATIONS
from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.training.data.batches import Batch, PairDataset, Prefetcher, Transform
from saliency_pipeline.uses.registry import find_use
from tests.training.examples import CLASSES, MAPS, PROVENANCE, SIZE, labeled, labeled_rows, store

ROWS = np.arange(24)
EMPTY = (3, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return ShardFolder(labeled(tmp_path_factory.mktemp("f") / "shards", 24))


@pytest.fixture(scope="module")
def with_empty(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """Some maps are 0 everywhere."""
    return ShardFolder(some_empty(tmp_path_factory.mktemp("f") / "shards"))


def some_empty(path: Path) -> Path:
    rows = labeled_rows(48)
    for index in EMPTY:
        rows.maps["gradcam"][index] = 0
    return store(path, ShardHeader("plan-empty", PROVENANCE, CLASSES[:3], SIZE, "raw", MAPS), rows)


def batch(folder: ShardFolder, use: str | None, maps: str = "own", epoch: int = 2, **transform: object) -> Batch:
    parsed = find_use(use) if use else None
    method = "gradcam" if parsed is not None and parsed.reads_maps else None
    prepared = Transform(**{"training": True, "seed": 5, **transform}, use=parsed)  # type: ignore[arg-type]
    return Prefetcher(PairDataset(folder, ROWS, method, maps=maps), prepared).prepare(ROWS, epoch)


@pytest.mark.parametrize("names", [(), ("crop", "flip"), AUGMENTATIONS])
@pytest.mark.parametrize(
    ("use", "maps"),
    [
        ("zoom", "uniform"),
        ("zoom:threshold=0.5,margin=0", "uniform"),
        ("zoom:views=2", "uniform"),
        ("mask", "uniform"),
        ("mask:fill=blur,floor=0", "uniform"),
        ("mask:floor=1", "own"),
        ("keep:crop=0.5,p=0", "uniform"),
        ("mix:p=0", "own"),
    ],
)
@pytest.mark.parametrize("size", [None, 24])
def test_uniform_maps_give_the_batches_of_the_baseline(
    folder: ShardFolder, use: str, maps: str, names: tuple[str, ...], size: int | None
) -> None:
    ours, plain = (batch(folder, name, maps, augment=names, size=size) for name in (use, None))
    assert torch.equal(ours.images, plain.images)
    assert ours.images.stride() == plain.images.stride()
    assert torch.equal(ours.labels, plain.labels)
    assert ours.maps is None
    assert ours.mixed is None
    assert ours.views == 1


@pytest.mark.parametrize("names", [("crop", "flip"), ()])
def test_uniform_keep_is_plain_augmentation_with_erasing(folder: ShardFolder, names: tuple[str, ...]) -> None:
    """The restriction is the only difference: the control has the same crops and erased rectangles."""
    use = find_use("keep:p=1")
    ours, other = (batch(folder, "keep:p=1", maps, augment=names) for maps in ("uniform", "own"))
    seeds = [(5, 2, position) for position in ROWS.tolist()]
    plain = batch(folder, None).images
    if names:
        plain, _ = augment(plain, None, names, seeds, scale=(0.3, 1.0))
    expected = use.finish(plain, torch.ones(len(ROWS), 1, SIZE, SIZE), (0.5, 0.5, 0.5), seeds)
    assert torch.equal(ours.images, expected)
    assert not torch.equal(other.images, expected)


def test_uniform_saliency_mix_is_cutmix(folder: ShardFolder) -> None:
    ours, plain = (
        batch(folder, use, maps, augment=("crop", "flip"))
        for use, maps in (("mix", "uniform"), ("mix:kind=cutmix", "own"))
    )
    assert ours.mixed is not None
    assert plain.mixed is not None
    assert torch.equal(ours.images, plain.images)
    assert torch.equal(ours.mixed.labels, plain.mixed.labels)
    assert torch.equal(ours.mixed.share, plain.mixed.share)


def test_mixed_labels_are_those_of_the_partners(folder: ShardFolder) -> None:
    """Mixup of images in which every pixel is the label shows both labels and the share."""
    result = batch(folder, "mix:kind=mixup,p=1")
    assert result.mixed is not None
    original = batch(folder, None)
    matches = 0
    for i in range(len(ROWS)):
        share = float(result.mixed.share[i])
        candidates = [j for j in range(len(ROWS)) if j != i and original.labels[j] == result.mixed.labels[i]]
        blends = [share * original.images[i].float() + (1 - share) * original.images[j].float() for j in candidates]
        matches += min(float((blend - result.images[i].float()).abs().max()) for blend in blends) <= 0.501
    assert matches == len(ROWS)


@pytest.mark.parametrize("use", ["zoom", "mask", "keep", "mix"])
def test_batches_depend_on_seed_epoch_and_rows(folder: ShardFolder, use: str) -> None:
    first, again = (batch(folder, use, augment=("crop", "flip")) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, batch(folder, use, augment=("crop", "flip"), epoch=3).images)
    assert not torch.equal(first.images, batch(folder, None, augment=("crop", "flip")).images)


@pytest.mark.parametrize("size", [None, 24])
def test_views_are_the_region_and_the_whole_frame(folder: ShardFolder, size: int | None) -> None:
    both, one, plain = (batch(folder, use, training=False, size=size) for use in ("zoom:views=2", "zoom", None))
    count = len(ROWS)
    assert both.views == 2
    assert len(both.labels) == len(both.positions) == count
    assert torch.equal(both.images[:count], one.images)
    assert torch.equal(both.images[count:], plain.images)
    assert both.images.is_contiguous(memory_format=torch.channels_last)
    logits = torch.rand(2 * count, 3)
    torch.testing.assert_close(both.average(logits), (logits[:count] + logits[count:]) / 2)
    assert torch.equal(one.average(logits[:count]), logits[:count])


def test_keep_and_mix_leave_validation_images_alone(folder: ShardFolder) -> None:
    for use in ("keep", "mix", "mix:kind=mixup"):
        result = batch(folder, use, training=False)
        assert torch.equal(result.images, batch(folder, None, training=False).images)
        assert result.mixed is None


@pytest.mark.parametrize("use", ["zoom", "mask", "keep:crop=0.5,p=0"])
def test_images_whose_map_is_empty_are_the_baselines(with_empty: ShardFolder, use: str) -> None:
    ours, plain = (batch(with_empty, name, augment=("crop", "flip")) for name in (use, None))
    for index in range(len(ROWS)):
        if index in EMPTY:
            assert torch.equal(ours.images[index], plain.images[index])
    assert not torch.equal(ours.images, plain.images)


@pytest.mark.parametrize(
    ("maps", "count"),
    [("own", len(EMPTY)), ("uniform", 0), ("center-prior", 0), ("shuffled-pixels", len(EMPTY))],
)
def test_empty_maps_are_counted(with_empty: ShardFolder, maps: str, count: int) -> None:
    assert PairDataset(with_empty, ROWS, "gradcam", maps=maps).unmarked == count
    assert PairDataset(with_empty, ROWS, None).unmarked == 0


def test_frames_larger_than_the_networks_are_resized(folder: ShardFolder) -> None:
    result = batch(folder, None, training=False, size=24)
    whole = batch(folder, None, training=False)
    assert result.images.shape == (24, 3, 24, 24)
    # anti-aliased: noise is averaged
    assert result.images.float().std() < whole.images.float().std()
    assert abs(float(result.images.float().mean() - whole.images.float().mean())) < 1
    assert batch(folder, "zoom", training=False, size=24).images.shape == (24, 3, 24, 24)
