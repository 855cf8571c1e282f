"""`keep`: crops and erased rectangles spare what the map marks, and are plain augmentation without a mark."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.uses.keep import Keep
from saliency_pipeline.uses.places import mass_share
from saliency_pipeline.uses.registry import find_use
from tests.uses.examples import SIZE, damaged, marked, noise, seeds

COUNT, MEAN = 200, (0.4, 0.5, 0.6)
COLOR = torch.tensor([102, 128, 153], dtype=torch.uint8).view(3, 1, 1)
CORNER = marked((0, 40, 20, 20)).expand(COUNT, -1, -1, -1)


def erased(images: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """The pixels that are erased, bool (B, S, S)."""
    changed = (images != result).any(1)
    assert (result.permute(0, 2, 3, 1)[changed] == COLOR.flatten()).all()
    return changed


def test_crops_hold_the_share_of_the_mass() -> None:
    use = Keep(share=0.9, crop=0.1)
    images = noise(1).expand(COUNT, -1, -1, -1)
    _, maps = augment(images, CORNER, ("crop",), seeds(COUNT), limits=use.limits(CORNER))
    _, plain = augment(images, CORNER, ("crop",), seeds(COUNT), scale=(0.1, 1.0))
    assert maps is not None
    assert plain is not None
    # what a crop that is enlarged to the frame holds has a larger area there
    assert maps.sum((1, 2, 3)).min() > 0.89 * CORNER[0].sum()
    assert plain.sum((1, 2, 3)).min() == 0
    kept = (maps == plain).flatten(1).all(1)
    # a crop that is allowed is that of plain augmentation
    assert 0 < int(kept.sum()) < COUNT


def test_a_pair_of_which_no_crop_is_allowed_stays_whole() -> None:
    whole = marked((0, 0, 60, 60)).expand(20, -1, -1, -1)
    images = noise(20)
    result, _ = augment(images, whole, ("crop",), seeds(20), limits=Keep(share=1, crop=0.01).limits(whole))
    assert torch.equal(result, images)


def test_what_is_erased_has_the_mean_color_and_little_mass() -> None:
    images = noise(COUNT)
    result = Keep(share=0.9, erase=0.4).finish(images, CORNER, MEAN, seeds(COUNT))
    boxes = erased(images, result)
    some = boxes.flatten(1).any(1)
    assert 0.35 * COUNT < int(some.sum()) < 0.65 * COUNT
    areas = boxes[some].float().mean((1, 2))
    assert areas.max() < 0.45
    assert areas.max() > 4 * areas.min()
    lost = (boxes * CORNER[:, 0]).sum((1, 2)) / CORNER[0].sum()
    assert lost.max() <= 0.1
    anywhere = erased(images, Keep(share=0, erase=0.4).finish(images, CORNER, MEAN, seeds(COUNT)))
    assert ((anywhere * CORNER[:, 0]).sum((1, 2)) / CORNER[0].sum()).max() > 0.5


def test_without_a_mark_it_is_plain_augmentation() -> None:
    maps, images = damaged(), noise(8)
    use = Keep(crop=0.2)
    for names in (("crop", "flip"), ("flip",)):
        ours, _ = augment(images, maps, names, seeds(8), limits=use.limits(maps))
        assert torch.equal(ours, augment(images, None, names, seeds(8), scale=(0.2, 1.0))[0])
    uniform, free = torch.ones(COUNT, 1, SIZE, SIZE), Keep(share=0)
    many = noise(COUNT)
    assert torch.equal(
        Keep(share=1).finish(many, uniform, MEAN, seeds(COUNT)), free.finish(many, CORNER, MEAN, seeds(COUNT))
    )


def test_without_probability_or_augmentation_nothing_changes() -> None:
    images, maps = noise(4), CORNER[:4]
    assert torch.equal(find_use("keep:p=0").finish(images, maps, MEAN, seeds(4)), images)
    assert torch.equal(augment(images, maps, (), seeds(4), limits=Keep().limits(maps))[0], images)


def test_choices_depend_on_an_images_own_numbers() -> None:
    images, numbers = noise(6), seeds(6, seed=3)
    result = Keep(p=1).finish(images, CORNER[:6], MEAN, numbers)
    part = Keep(p=1).finish(images[[4, 1]], CORNER[:2], MEAN, [numbers[4], numbers[1]])
    assert torch.equal(part, result[[4, 1]])
    assert not torch.equal(Keep(p=1).finish(images, CORNER[:6], MEAN, seeds(6, seed=3, epoch=1)), result)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**62), st.floats(0, 1))
def test_the_share_holds_after_crop_and_erasing(seed: int, share: float) -> None:
    """What is left is at least share of share, for a map that is a function of the image."""
    images = noise(3, seed=seed % 1000)
    maps = (images[:, :1].float() / 255).pow(3)
    use, numbers = Keep(share=share, p=1), seeds(3, seed)
    limits = use.limits(maps)
    for index in range(3):
        assert limits.allowed(index, (0, 0, SIZE, SIZE))
        box = (5, 5, 30, 40)
        assert limits.allowed(index, box) == (mass_share(maps[index, 0], box) >= share)
    boxes = erased(images, use.finish(images, maps, MEAN, numbers))
    lost = (boxes * maps[:, 0]).sum((1, 2)) / maps.sum((1, 2, 3))
    assert lost.max() <= 1 - share + 1e-5


@pytest.mark.parametrize("text", ["keep:share=0.5", "keep"])
def test_it_needs_no_maps_at_test(text: str) -> None:
    assert not find_use(text).at_test
    assert find_use(text).reads_maps
