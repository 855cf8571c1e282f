"""`mask`: the formula by hand, and images without a mark unchanged to the bit."""

import pytest
import torch

from saliency_pipeline.uses.mask import Mask
from saliency_pipeline.uses.registry import find_use
from tests.uses.examples import SIZE, damaged, marked, noise

MEAN = (0.4, 0.5, 0.6)
FILLS = ("mean", "black", "blur")


def test_the_formula_by_hand() -> None:
    images = torch.full((1, 3, SIZE, SIZE), 200, dtype=torch.uint8)
    maps = marked((0, 0, 8, 8)) + 0.5 * marked((32, 0, 8, 8))
    result = Mask(floor=0.2).change(images, maps, MEAN)
    assert (result.dtype, result.shape) == (torch.uint8, images.shape)
    assert result.is_contiguous(memory_format=torch.channels_last)
    for channel, mean in enumerate(MEAN):
        own = result[0, channel]
        assert own[4, 4] == 200
        assert own[36, 4] == round(0.6 * 200 + 0.4 * 255 * mean)
        assert own[50, 50] == round(0.2 * 200 + 0.8 * 255 * mean)
    dark = Mask(fill="black", floor=0.25).change(images, maps, MEAN)
    assert dark[0, :, 50, 50].tolist() == [50, 50, 50]
    assert dark[0, :, 4, 4].tolist() == [200, 200, 200]
    assert (images == 200).all()


def test_the_blur_keeps_the_mean_and_removes_detail() -> None:
    images, maps = noise(2), marked((0, 0, 8, 8), (0, 0, 8, 8))
    result = Mask(fill="blur", floor=0).change(images, maps, MEAN)
    assert torch.equal(result[:, :, :8, :8], images[:, :, :8, :8])
    rest = result[:, :, 20:, 20:].float()
    assert abs(rest.mean() - images.float().mean()) < 10
    assert rest.std() < images.float().std() / 4


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_maps_that_mark_no_place_leave_images_to_the_bit(fill: str, floor: float) -> None:
    maps, images = damaged(), noise(8)
    assert torch.equal(Mask(fill=fill, floor=floor).change(images, maps, MEAN), images)
    some = torch.cat([maps[:2], marked((8, 8, 8, 8))])
    result = Mask(fill=fill, floor=floor).change(images[:3], some, MEAN)
    assert torch.equal(result[:2], images[:2])
    assert not torch.equal(result[2], images[2])


def test_a_floor_of_one_changes_nothing() -> None:
    images = noise(2)
    assert torch.equal(find_use("mask:floor=1").change(images, marked((8, 8, 8, 8), (0, 0, 9, 9)), MEAN), images)
