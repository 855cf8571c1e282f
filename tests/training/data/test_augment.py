"""Augmentation: the pair stays aligned, color leaves maps alone, and augmentation of a pair depends on its own seed."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torchvision.transforms.v2 import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import AUGMENTATIONS
from saliency_pipeline.training.data.augment import augment

SIZE = 64
PHOTOS = torch.from_numpy(
    np.stack([photo[100 : 100 + SIZE, 150 : 150 + SIZE] for photo in (data.astronaut(), data.chelsea(), data.coffee())])
).permute(0, 3, 1, 2)
SUBSETS = [names for count in range(4) for names in itertools.combinations(AUGMENTATIONS, count)]


def seeds(first: int, count: int = len(PHOTOS)) -> list[tuple[int, int, int]]:
    return [(first, 0, position) for position in range(count)]


def own_maps(channel: int) -> torch.Tensor:
    """Maps made from the images themselves."""
    return PHOTOS[:, channel : channel + 1].float() / 255


@settings(deadline=None)
@given(st.integers(0, 2**62), st.sampled_from([("crop",), ("flip",), ("crop", "flip")]), st.integers(0, 2))
def test_a_map_made_from_the_image_stays_the_images_channel(seed, names, channel):
    images, maps = augment(PHOTOS, own_maps(channel), names, seeds(seed))
    assert maps is not None
    # the image is rounded to whole levels, the map is not
    torch.testing.assert_close(images[:, channel : channel + 1] / 255, maps, rtol=0, atol=0.5 / 255 + 1e-5)


@pytest.mark.parametrize("names", SUBSETS)
def test_color_leaves_maps_alone_and_no_name_changes_another(names):
    without = tuple(name for name in names if name != "color")
    images, maps = augment(PHOTOS, own_maps(0), names, seeds(5))
    plain, plain_maps = augment(PHOTOS, own_maps(0), without, seeds(5))
    torch.testing.assert_close(maps, plain_maps, rtol=0, atol=0)
    assert torch.equal(images, plain) == ("color" not in names)
    alone, none = augment(PHOTOS, None, names, seeds(5))
    assert none is None
    assert torch.equal(alone, images)


@pytest.mark.parametrize("names", SUBSETS)
def test_shapes_types_and_inputs_are_kept(names):
    before, maps = PHOTOS.clone(), own_maps(1) * 7 - 3
    images, changed = augment(PHOTOS, maps, names, seeds(0))
    assert (images.shape, images.dtype) == (PHOTOS.shape, torch.uint8)
    assert (changed.shape, changed.dtype) == (maps.shape, torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(PHOTOS, before)
    assert torch.equal(maps, own_maps(1) * 7 - 3)
    assert changed.amin() >= maps.amin() - 1e-5
    assert changed.amax() <= maps.amax() + 1e-5


def test_a_pair_does_not_depend_on_its_neighbors_or_on_global_generators():
    images, maps = augment(PHOTOS, own_maps(0), AUGMENTATIONS, seeds(9))
    torch.manual_seed(1)
    np.random.seed(1)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for chosen in ([2, 0], [1], [1, 2, 0]):
        some, some_maps = augment(PHOTOS[chosen], own_maps(0)[chosen], AUGMENTATIONS, [seeds(9)[i] for i in chosen])
        assert torch.equal(some, images[chosen])
        assert torch.equal(some_maps, maps[chosen])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == legacy


def test_seed_epoch_and_position_each_change_the_pair():
    photo = PHOTOS[:1].expand(27, -1, -1, -1)
    images, _ = augment(photo, None, AUGMENTATIONS, list(itertools.product(range(3), repeat=3)))
    assert len(images.flatten(1).unique(dim=0)) == 27


def test_flips_are_mirror_images_of_half_the_pairs():
    photo = PHOTOS[:1].expand(200, -1, -1, -1)
    images, maps = augment(photo, own_maps(0)[:1].expand(200, -1, -1, -1), ("flip",), seeds(0, 200))
    kept = (images == photo).flatten(1).all(1)
    assert torch.equal(images[~kept], photo[~kept].flip(3))
    assert torch.equal(maps[~kept][:1], own_maps(0)[:1].flip(3))
    assert 70 < kept.sum() < 130


@pytest.mark.parametrize("scale", [(0.5, 1.0), (0.08, 0.1), (1.0, 1.0)])
def test_crops_keep_within_their_bounds(scale):
    """Maps of the pixels' own coordinates show the position of a crop, and that it was resized as by torchvision."""
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    count, shapes = 100, []
    for coordinate in (y, x):
        maps = coordinate.expand(count, 1, SIZE, SIZE)
        images = torch.zeros(count, 3, SIZE, SIZE, dtype=torch.uint8)
        _, changed = augment(images, maps, ("crop",), seeds(3, count), scale=scale)
        across = changed[:, 0].transpose(1, 2) if coordinate is y else changed[:, 0]
        # from pixel center to pixel center in the middle, where no border shortens the steps
        shapes.append((across[:, 0, SIZE // 2 + 8] - across[:, 0, SIZE // 2 - 8]) / 16 * SIZE)
        assert changed.amin() >= 0
        assert changed.amax() <= SIZE - 1
    tall, wide = shapes
    area, ratio = tall * wide / SIZE**2, wide / tall
    assert area.amin() > scale[0] - 0.03
    assert area.amax() < scale[1] + 0.03
    assert ratio.amin() > 3 / 4 - 0.06
    assert ratio.amax() < 4 / 3 + 0.06
    if scale[0] < scale[1]:
        assert ratio.std() > 0.1
        assert len(np.unique(tall.round())) > 5


def test_a_crop_equals_torchvisions_with_antialiasing():
    """A crop is never larger than the frame, so anti-aliasing, which costs as much again, changes nothing."""
    frame = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for box in [(0, 0, SIZE, SIZE), (3, 10, 40, 54), (20, 0, 44, 33)]:
        both = [functional.resized_crop(frame, *box, [SIZE, SIZE], antialias=antialias) for antialias in (True, False)]
        torch.testing.assert_close(*both, rtol=0, atol=1e-5)


def test_color_factors_lie_around_one():
    gray = torch.full((300, 3, 8, 8), 100, dtype=torch.uint8)
    images, _ = augment(gray, None, ("color",), seeds(0, 300))
    # contrast and saturation leave a uniform gray as it is
    levels = images.flatten(1).float()
    assert (levels.amax(1) - levels.amin(1)).amax() <= 1
    assert 70 <= levels.min() < 80
    assert 120 < levels.max() <= 130
    assert levels.mean() == pytest.approx(100, abs=3)
    same, _ = augment(PHOTOS, None, ("color",), seeds(0), strength=0)
    assert (same.int() - PHOTOS.int()).abs().max() == 0


def test_the_error_for_an_unknown_augmentation_lists_all():
    with pytest.raises(SalpipeError, match="'rotate' is unknown; use some of crop, flip, color"):
        augment(PHOTOS, None, ("rotate",), seeds(0))
