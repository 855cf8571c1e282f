"""`zoom`: regions by hand, against a search of all squares, within the frame, and aligned with their maps."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import resized_crop

from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.training.data.maps import normalize, upsample
from saliency_pipeline.uses.registry import find_use
from saliency_pipeline.uses.zoom import CELLS, Zoom, _holding
from tests.training.data.test_augment import PHOTOS
from tests.uses.examples import SIZE, damaged, marked, seeds

EXACT = "zoom:mass=1,margin=0,smallest=0.01"


@pytest.mark.parametrize(
    ("use", "box", "region"),
    [
        (EXACT, (16, 32, 8, 8), (16, 32, 8, 8)),
        (EXACT, (16, 32, 4, 8), (14, 32, 8, 8)),  # in the middle of a square
        ("zoom:mass=0.5,margin=0,smallest=0.01", (16, 24, 8, 16), (16, 28, 8, 8)),
        ("zoom:mass=1,margin=0.5,smallest=0.01", (16, 32, 8, 8), (12, 28, 16, 16)),
        ("zoom:mass=1,margin=0.5,smallest=0.01", (0, 56, 8, 8), (0, 48, 16, 16)),  # moved into the frame
        ("zoom:mass=1,margin=9", (16, 32, 8, 8), (0, 0, 64, 64)),
        ("zoom:mass=1,margin=0,smallest=0.5", (16, 32, 8, 8), (4, 20, 32, 32)),
        ("zoom:threshold=0.5,margin=0,smallest=0.01", (16, 32, 8, 16), (12, 32, 16, 16)),
    ],
)
def test_regions_by_hand(use: str, box: tuple[int, ...], region: tuple[int, ...]) -> None:
    result = find_use(use).regions(marked(box), None)
    assert result.dtype == torch.int64
    assert result.tolist() == [list(region)]


def test_a_threshold_leaves_out_what_is_weaker() -> None:
    maps = marked((8, 8, 8, 8)) + 0.3 * marked((48, 48, 8, 8))
    strong = find_use("zoom:threshold=0.5,margin=0,smallest=0.01").regions(maps, None)
    both = find_use("zoom:threshold=0.2,margin=0,smallest=0.01").regions(maps, None)
    assert strong.tolist() == [[8, 8, 8, 8]]
    assert both.tolist() == [[8, 8, 48, 48]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([3, 5, 8]), st.floats(0.05, 1))
def test_the_square_is_the_smallest_of_all(seed: int, n: int, mass: float) -> None:
    cells = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)).double().pow(4).numpy()
    down, right, side = _holding(cells, mass, float(n))
    sums = {
        (size, top, left): cells[top : top + size, left : left + size].sum()
        for size in range(1, n + 1)
        for top, left in itertools.product(range(n - size + 1), repeat=2)
    }
    enough = [key for key, value in sums.items() if value >= mass * cells.sum() * (1 - 1e-9)]
    assert side == min(enough)[0]
    best = max(value for (size, _, _), value in sums.items() if size == side)
    assert sums[side, round(down - side / 2), round(right - side / 2)] == pytest.approx(best)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([32, 50, 64, 160, 224]), st.sampled_from([0.3, 0.9, 1.0]))
def test_regions_lie_within_the_frame_and_hold_the_mass(seed: int, side: int, mass: float) -> None:
    """Also where the frame is no multiple of the cells that are searched."""
    raw = torch.rand(4, 7, 7, generator=torch.Generator().manual_seed(seed)).pow(3)
    maps = normalize(upsample(raw, side), "minmax")
    cell = -(-side // CELLS)
    for margin in (0.0, 0.1):
        for values, region in zip(maps[:, 0], Zoom(mass=mass, margin=margin).regions(maps, None).tolist(), strict=True):
            top, left, height, width = region
            assert min(top, left) >= 0
            assert height == width >= round(0.2 * side)
            assert max(top + height, left + width) <= side
            # the center is rounded to a pixel, and cells at the border may be cut
            more = max(cell - 1, 1)
            within = values[max(top - more, 0) : top + height + more, max(left - more, 0) : left + width + more]
            assert within.sum() >= mass * values.sum() * (1 - 1e-5)


@pytest.mark.parametrize("use", ["zoom", "zoom:threshold=0.5", "zoom:views=2"])
def test_maps_that_mark_no_place_give_the_whole_frame(use: str) -> None:
    maps = damaged()
    for numbers in (None, seeds(len(maps))):
        assert find_use(use).regions(maps, numbers).tolist() == [[0, 0, SIZE, SIZE]] * len(maps)


def test_regions_do_not_depend_on_the_batch() -> None:
    maps = normalize(upsample(torch.rand(6, 7, 7, generator=torch.Generator().manual_seed(1)), SIZE), "minmax")
    whole = Zoom().regions(maps, None)
    assert torch.equal(torch.cat([Zoom().regions(one[None], None) for one in maps]), whole)


def test_two_views_show_half_of_the_training_images_whole() -> None:
    count = 200
    maps = marked((8, 8, 8, 8)).expand(count, -1, -1, -1)
    regions = Zoom(views=2).regions(maps, seeds(count))
    whole = (regions == torch.tensor([0, 0, SIZE, SIZE])).all(1)
    assert 70 < int(whole.sum()) < 130
    assert torch.equal(regions[~whole], Zoom().regions(maps, None)[~whole])
    assert torch.equal(Zoom(views=2).regions(maps, None), Zoom().regions(maps, None))
    again = Zoom(views=2).regions(maps, seeds(count, epoch=1))
    assert not torch.equal(again, regions)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**62),
    st.sampled_from([(), ("crop",), ("flip",), ("crop", "flip")]),
    st.sampled_from([48, 64]),
    st.sampled_from(["zoom", "zoom:threshold=0.6", "zoom:views=2"]),
)
def test_a_map_made_from_the_image_stays_aligned(seed: int, names: tuple[str, ...], size: int, use: str) -> None:
    """Zoom, crop, flip and the size of the network move image and map alike."""
    own = PHOTOS[:, 1:2].float() / 255
    regions = find_use(use).regions(own.pow(4), seeds(len(PHOTOS), seed))
    images, maps = augment(PHOTOS, own, names, seeds(len(PHOTOS), seed), size=size, regions=regions)
    assert maps is not None
    assert images.shape[-1] == maps.shape[-1] == size
    torch.testing.assert_close(images[:, 1:2] / 255, maps, rtol=0, atol=0.5 / 255 + 1e-5)


def test_a_region_is_enlarged_in_one_step() -> None:
    regions = torch.tensor([[3, 10, 20, 20]])
    images, _ = augment(PHOTOS[:1], None, (), [()], size=48, regions=regions)
    expected = resized_crop(PHOTOS[:1].float(), 3, 10, 20, 20, [48, 48], antialias=False)
    torch.testing.assert_close(images.float(), expected, rtol=0, atol=0.51)


def test_crops_lie_within_the_region() -> None:
    """A frame that is black outside the region shows no black after zoom and crop."""
    images = torch.zeros(50, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, :, 16:48, 8:40] = 200
    regions = torch.tensor([[16, 8, 32, 32]]).expand(50, -1)
    result, _ = augment(images, None, ("crop", "flip"), seeds(50), regions=regions)
    assert result.min() == 200
