"""Maps of the true boxes: where they mark a frame, and which shards they are refused for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.sources import OracleMaps, marked_area
from saliency_pipeline.uses.registry import find_use
from tests.evaluation.runs import Notes
from tests.generation.examples import run
from tests.training.boxed import IMAGES, box_of, boxed
from tests.training.examples import SIZE, labeled, labeled_rows

CPU = torch.device("cpu")
EVERY = np.arange(IMAGES)


def test_pixels_in_a_box_are_1_and_those_at_its_border_have_the_share_inside() -> None:
    area = marked_area(np.array([[1.0, 2.0, 3.0, 4.0]]), 6)
    expected = np.zeros((6, 6), np.float32)
    expected[2:4, 1:3] = 1
    np.testing.assert_array_equal(area, expected)
    shares = marked_area(np.array([[0.5, 0.0, 2.0, 0.25]]), 3)
    np.testing.assert_allclose(shares[0], [0.125, 0.25, 0])
    assert not shares[1:].any()


def test_of_several_boxes_the_union_is_marked() -> None:
    one, other = np.array([[0.0, 0, 3, 3]]), np.array([[2.0, 1, 5, 4]])
    both = marked_area(np.concatenate([one, other]), 8)
    np.testing.assert_array_equal(both, np.maximum(marked_area(one, 8), marked_area(other, 8)))
    assert both.sum() == 9 + 9 - 2
    assert not marked_area(np.empty((0, 4)), 8).any()


def test_the_map_covers_the_figure_of_its_image(tmp_path: Path) -> None:
    pairs = ShardFolder(boxed(tmp_path / "shards"))
    maps = OracleMaps(pairs).at(EVERY[::-1])
    figures = labeled_rows(IMAGES).maps["gradient-simonyan"][::-1, 0] > 0.5
    assert maps.shape == (IMAGES, SIZE, SIZE)
    for area, figure in zip(maps, figures, strict=True):
        left, top, right, bottom = box_of(figure)
        assert area[top:bottom, left:right].min() == 1
        assert area.sum() == (right - left) * (bottom - top)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        # 64 x 32 pixels, the box in the right half: halved it is 32 x 16 and padded by 8 rows, or cropped in the middle
        ("pad", (slice(8, 24), slice(16, 32))),
        ("crop", (slice(0, 32), slice(16, 32))),
        ("squash", (slice(0, 32), slice(16, 32))),
    ],
)
def test_boxes_are_where_the_fit_puts_them(tmp_path: Path, fit: str, expected: tuple[slice, slice]) -> None:
    rows = {"boxes": [((32, 0, 64, 32),)] * IMAGES, "source_size": np.tile(np.array([[32, 64]], np.int32), (IMAGES, 1))}
    source = OracleMaps(ShardFolder(boxed(tmp_path / "shards", fit=fit, **rows)))
    area = np.zeros((SIZE, SIZE), np.float32)
    area[expected] = 1
    np.testing.assert_array_equal(source.at(np.array([0]))[0], area)


def test_a_box_outside_the_frame_marks_nothing_and_counts_as_none(tmp_path: Path) -> None:
    # the center crop of 128 x 32 pixels shows columns 48 to 80
    rows = {"boxes": [((0, 0, 40, 32),)] * IMAGES, "source_size": np.tile(np.array([[32, 128]], np.int32), (IMAGES, 1))}
    source = OracleMaps(ShardFolder(boxed(tmp_path / "shards", **rows)))
    assert not source.at(EVERY).any()
    assert not source.marked(EVERY).any()


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_a_box_are_counted_and_refused_from_10_percent_on(tmp_path: Path, masks: bool) -> None:
    kind, option = ("mask", "--maps-from FOLDER") if masks else ("box", "--boxes FILE")
    source = OracleMaps(ShardFolder(boxed(tmp_path / "few", without=range(4), masks=masks)))
    source.prepare(EVERY, CPU, Notes())
    assert source.marked(EVERY).tolist() == [False] * 4 + [True] * 44
    assert not source.at(np.arange(4)).any()
    source = OracleMaps(ShardFolder(boxed(tmp_path / "many", without=range(5), masks=masks)))
    with pytest.raises(SalpipeError) as error:
        source.prepare(EVERY, CPU, Notes())
    assert str(error.value) == (
        f"--maps oracle: 43 of 48 images have a {kind} in {tmp_path / 'many'}, fewer than 90%; generate it again with "
        f"those of the others ('salpipe generate {option}')"
    )


def test_shards_with_neither_boxes_nor_masks_are_refused_and_masks_are_taken(tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"holds no boxes of objects; generate it again with 'salpipe generate --bo"):
        OracleMaps(ShardFolder(labeled(tmp_path / "plain")))
    source = OracleMaps(ShardFolder(boxed(tmp_path / "masks", masks=True)))
    assert source.record == {"oracle": "given"}
    figures = labeled_rows(IMAGES).maps["gradient-simonyan"][:, 0] > 0.5
    np.testing.assert_array_equal(source.at(EVERY), figures.astype(np.float32))


@pytest.mark.parametrize("use", ["zoom", "mask"])
def test_a_box_of_the_whole_frame_changes_nothing(tmp_path: Path, use: str) -> None:
    """It is not normalized to a map of zeros, which marks no place."""
    boxes = [((0, 0, SIZE, SIZE),)] * IMAGES
    pairs = ShardFolder(boxed(tmp_path / "shards", boxes=boxes))
    dataset = PairDataset(pairs, EVERY, None, maps="oracle", source=OracleMaps(pairs))
    plain = Prefetcher(PairDataset(pairs, EVERY, None), Transform()).prepare(range(8), 0)
    batch = Prefetcher(dataset, Transform(use=find_use(use))).prepare(range(8), 0)
    assert torch.equal(batch.images, plain.images)
    maps = Prefetcher(dataset, Transform()).prepare(range(8), 0).maps
    assert maps is not None
    assert bool((maps == 1).all())


def test_zoom_to_the_oracle_shows_the_figure(tmp_path: Path) -> None:
    pairs = ShardFolder(boxed(tmp_path / "shards", without=[1]))
    dataset = PairDataset(pairs, EVERY, None, maps="oracle", source=OracleMaps(pairs))
    transform = Transform(use=find_use("zoom:mass=1,margin=0,smallest=0.01"))
    zoom, maps = transform.use, torch.from_numpy(dataset.source.at(EVERY[:8]))[:, None]
    shares = torch.stack(
        [one[0, t : t + h, s : s + w].mean() for one, (t, s, h, w) in zip(maps, zoom.regions(maps, None), strict=True)]
    )
    # a stripe of 12 x 4 pixels is a third of its square
    assert float(shares[[0, 2, 3, 4, 5, 6, 7]].min()) > 0.3
    # no box: the whole frame, in which nothing is marked
    assert float(shares[1]) == 0
    whole = Prefetcher(PairDataset(pairs, EVERY, None), replace(transform, use=None)).prepare(range(8), 0)
    zoomed = Prefetcher(dataset, transform).prepare(range(8), 0)
    assert torch.equal(zoomed.images[1], whole.images[1])


def test_the_box_of_an_image_10000_pixels_wide_is_right(tmp_path: Path) -> None:
    pixels = np.full((2500, 10_000, 3), 90, np.uint8)
    pixels[500:1500, 4500:6000] = (230, 20, 20)
    (tmp_path / "images/red").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "images/red/wide.jpg", quality=95)
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\nwide.jpg,4500,500,5999,1499\n")
    for fit in ("crop", "pad"):
        report = run(tmp_path / "images", tmp_path / fit, fit=fit, size=256, boxes=tmp_path / "boxes.csv")
        assert (report.images, report.rejects) == (1, 0)
        pairs = ShardFolder(tmp_path / fit)
        area, frame = OracleMaps(pairs).at(np.array([0]))[0], pairs[0].image.astype(int)
        red = (frame[..., 0] - frame[..., 1]) > 100
        overlap = np.minimum(area, red).sum() / np.maximum(area, red).sum()
        assert overlap > 0.95
