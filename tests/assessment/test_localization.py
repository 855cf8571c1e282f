"""Metrics that compare maps with boxes, with slow twins and cases that can be computed by hand."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry, enlarged
from saliency_pipeline.assessment.metrics import localization
from saliency_pipeline.assessment.metrics.localization import (
    EnergyPointingGame,
    Localization,
    PointingGame,
    RelevanceRankAccuracy,
)
from saliency_pipeline.assessment.metrics.registry import find_metrics
from saliency_pipeline.errors import OptionError

SIZE = 64
METRICS = (PointingGame(), EnergyPointingGame(), Localization(), RelevanceRankAccuracy())


def ask(maps, boxes, size=SIZE):
    """An inquiry of maps (B, h, w) of frames with lists of boxes."""
    frames, none = np.zeros((len(maps), size, size, 3), np.uint8), np.zeros(len(maps), np.int64)
    own = [np.array(each, np.float64).reshape(-1, 4) for each in boxes]
    return Inquiry(ImageBatch([str(i) for i in range(len(maps))], frames, none, none, own), "gradcam", np.array(maps))


def measure(maps, boxes, size=SIZE):
    inquiry, values = ask(maps, boxes, size), {}
    for metric in METRICS:
        values |= metric.finish(metric.values(inquiry))
    return values


@pytest.fixture(scope="module")
def made_up():
    """Maps of several kinds with 0 to 3 boxes each, parts of pixels wide."""
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((12, 7, 7)).astype(np.float32)
    maps[::3] = np.maximum(maps[::3], 0)
    maps[4], maps[5], maps[6] = 0, -0.1, 0.1
    corner = rng.uniform(0, 40, (12, 3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 24, (12, 3, 2))], axis=2)
    return maps, [own[: i % 4] for i, own in enumerate(boxes)]


def inside(boxes):
    """Pixels whose centers are in one of the boxes (S, S)."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.any([(x >= x0) & (x < x1) & (y >= y0) & (y < y1) for x0, y0, x1, y1 in boxes], axis=0)


def pointing_twin(saliency, boxes):
    point = np.argwhere(saliency == saliency.max())[0]
    distance = np.linalg.norm(np.argwhere(inside(boxes)) - point, axis=1).min()
    return float(distance == 0 or distance < 15 * SIZE / 224)


def energy_twin(saliency, boxes):
    positive = np.maximum(saliency, 0).astype(np.float64)
    return positive[inside(boxes)].sum() / positive.sum() if positive.any() else inside(boxes).mean()


def rank_twin(saliency, boxes):
    count = inside(boxes).sum()
    return inside(boxes).reshape(-1)[np.argsort(-saliency.reshape(-1), kind="stable")[:count]].mean()


def overlap_twin(component, box):
    shared = np.prod(np.maximum(np.minimum(component[2:], box[2:]) - np.maximum(component[:2], box[:2]), 0))
    return shared / (np.prod(component[2:] - component[:2]) + np.prod(box[2:] - box[:2]) - shared)


def localization_twin(raw, boxes):
    side = 28 if max(raw.shape) <= 28 else 56
    cells = enlarged(torch.from_numpy(raw)[None], side)[0].numpy().astype(np.float64)
    scaled = (cells - cells.min()) / np.ptp(cells) if np.ptp(cells) else np.ones_like(cells)
    curve = []
    for threshold in range(40):
        above = (scaled.astype(np.float32) > np.float32(threshold / 40)).astype(np.uint8)
        x, y, width, height, _ = cv2.connectedComponentsWithStats(above, connectivity=8)[2][1:].T
        components = np.stack([x, y, x + width, y + height], axis=1) * SIZE / side
        curve.append(max(overlap_twin(component, box) for component in components for box in boxes))
    return curve


def test_all_agree_with_their_twins(made_up):
    maps, boxes = made_up
    values, saliency = measure(maps, boxes), ask(maps, boxes).enlarged.numpy()
    for i, own in enumerate(boxes):
        if not len(own):
            assert all(np.isnan(column[i]).all() for column in values.values())
            continue
        assert values["pointing"][i] == pointing_twin(saliency[i], own)
        assert values["energy"][i] == pytest.approx(energy_twin(saliency[i], own), abs=1e-6)
        assert values["energy-gain"][i] == pytest.approx(values["energy"][i] / inside(own).mean(), abs=1e-6)
        assert values["rank-accuracy"][i] == pytest.approx(rank_twin(saliency[i], own), abs=1e-6)
        assert values["localization-iou"][i] == pytest.approx(localization_twin(maps[i], own), abs=1e-6)


def test_components_within_holes_are_components_and_holes_are_not():
    cells = np.full((1, 56, 56), 0.5, np.float32)
    cells[0, 10:40, 10:40], cells[0, 20:30, 20:30] = 0, 1
    cells[0, 55, 55] = 0.9
    number, threshold, corners = localization._components(cells)
    assert set(number) == {0}
    assert sorted(corners.T[threshold == 0].tolist()) == [[0, 0, 56, 56], [20, 20, 30, 30]]
    assert sorted(corners.T[threshold == 20].tolist()) == [[20, 20, 30, 30], [55, 55, 56, 56]]
    assert corners.T[threshold == 39].tolist() == [[20, 20, 30, 30]]


@pytest.mark.parametrize("box", [(37, 61, 150, 170), (0, 0, 224, 224), (100, 3, 131, 30), (12, 200, 60, 224)])
def test_a_map_that_is_the_box_scores_1(box):
    saliency = np.zeros((1, 224, 224), np.float32)
    saliency[0, box[1] : box[3], box[0] : box[2]] = 2
    values = measure(saliency, [[box]], 224)
    for column in ("pointing", "energy", "rank-accuracy", "localization"):
        assert values[column] == 1
    assert values["energy-gain"] == pytest.approx(224**2 / ((box[2] - box[0]) * (box[3] - box[1])))


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 3e38])
def test_constant_maps_have_values(value):
    box = (16, 0, 48, 32)
    values = measure(np.full((1, 7, 7), value, np.float32), [[box]])
    assert values["energy"] == pytest.approx(0.25, abs=1e-6)
    assert values["energy-gain"] == pytest.approx(1, abs=1e-6)
    assert (values["localization-iou"] == 0.25).all()
    assert values["localization"] == 0
    # the first pixels in rows: the corner is 16 pixels from the box, and of the first 16 rows half are in it
    assert values["pointing"] == 0
    assert values["rank-accuracy"] == 0.5


def test_of_tied_cells_the_first_counts():
    saliency = np.zeros((2, 8, 8), np.float32)
    saliency[0, 1, 2] = saliency[0, 6, 6] = 1
    saliency[1] = saliency[0].T
    near_first, near_second = [(1, 0, 3, 2)], [(6, 6, 8, 8)]
    assert PointingGame().values(ask(saliency, [near_first, near_second], 8))["pointing"].tolist() == [1, 0]
    # four pixels: both peaks, then the first of the zeros
    rank = RelevanceRankAccuracy().values(ask(saliency, [[(0, 0, 2, 1), (6, 6, 8, 7)]] * 2, 8))["rank-accuracy"]
    assert rank.tolist() == [0.75, 0.75]


def test_the_tolerance_is_strict_and_scaled():
    saliency = np.zeros((1, 8, 8), np.float32)
    saliency[0, 4, 4] = 1
    # the point is 2 rows and 1 column from the nearest pixel of the box, the square root of 5 pixels
    hits = [PointingGame(tolerance).values(ask(saliency, [[(5, 6, 8, 8)]], 8))["pointing"] for tolerance in (62, 63)]
    assert hits == [0, 1]
    assert PointingGame(0).values(ask(saliency, [[(4, 4, 5, 5)]], 8))["pointing"] == 1
    assert PointingGame(28).values(ask(saliency, [[(5, 4, 6, 5)]], 8))["pointing"] == 0


def test_a_box_smaller_than_a_pixel_is_one():
    saliency = np.zeros((1, 8, 8), np.float32)
    saliency[0, 7, 3] = 1
    values = measure(saliency, [[(3.1, 7.7, 3.3, 8)]], 8)
    assert values["pointing"] == values["energy"] == values["rank-accuracy"] == 1
    assert values["energy-gain"] == 64


def test_of_overlapping_boxes_the_union_counts():
    saliency = np.ones((1, 8, 8), np.float32)
    assert measure(saliency, [[(0, 0, 4, 4), (2, 0, 6, 4), (0, 0, 4, 4)]], 8)["energy"] == 24 / 64


def test_the_best_thresholds_are_those_of_the_data_set():
    curve = np.zeros((4, 40))
    curve[0, 10], curve[1, 10], curve[2, 10:12], curve[0, 20] = 0.3, 0.55, [0.2, 0.8], 0.9
    curve[3] = np.nan
    values = Localization().finish({"localization": np.full(4, np.nan), "localization-iou": curve})
    # 0.3: image 0 and 1 at 10; 0.5: the first of 10, 11 and 20, with one hit each; 0.7: the first of 11 and 20
    assert values["localization"][:3].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    assert np.isnan(values["localization"][3])
    unboxed = {"localization": np.full(2, np.nan), "localization-iou": np.full((2, 40), np.nan)}
    assert np.isnan(Localization().finish(unboxed)["localization"]).all()


def test_values_do_not_depend_on_the_batch(made_up):
    maps, boxes = made_up
    inquiry = ask(maps, boxes)
    for metric in METRICS:
        batch = metric.values(inquiry)
        alone = [metric.values(ask(maps[i : i + 1], boxes[i : i + 1])) for i in range(len(maps))]
        for column, values in batch.items():
            np.testing.assert_array_equal(values, np.concatenate([each[column] for each in alone]))


def test_maps_are_enlarged_as_by_torch_but_constant_ones_remain_so():
    maps = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 7, 10)).astype(np.float32))
    expected = interpolate(maps[:, None], (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(enlarged(maps, SIZE), expected, atol=2e-6, rtol=0)
    for shape in ((7, 7), (10, 10), (240, 240)):
        assert len(enlarged(torch.full((1, *shape), 0.1), 224).unique()) == 1


def test_parameters():
    (metric,) = find_metrics(["pointing-game:tolerance=0"])
    assert metric == PointingGame(0)
    assert PointingGame().canonical == "pointing-game:tolerance=15"
    with pytest.raises(OptionError, match=r"tolerance=-1: use a number from 0 to 224"):
        find_metrics(["pointing-game:tolerance=-1"])
    assert Localization().points("localization-iou").tolist() == pytest.approx(np.arange(0, 1, 0.025))
