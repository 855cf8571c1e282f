"""ROAD: imputation against a dense solution and pytorch-grad-cam's, and the metric against pytorch-grad-cam's."""

import numpy as np
import pytest
import torch

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics import imputation
from saliency_pipeline.assessment.metrics.imputation import Road, imputed
from saliency_pipeline.errors import OptionError
from tests.assessment.networks import batch_of, check_values, normalized, pooled, random_maps
from tests.saliency.fake_pixels import random_frames

WEIGHTS = {(i, j): 1 / 6 if 0 in (i, j) else 1 / 12 for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}

# pytorch-grad-cam passes tensors to NumPy functions that NumPy 2 warns about
PEER = pytest.mark.filterwarnings(
    "ignore:__array_wrap__:DeprecationWarning", "ignore::scipy.sparse.SparseEfficiencyWarning"
)


def dense(frame: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Each missing pixel as the weighted mean of its neighbors, from a dense system."""
    side = len(missing)
    matrix, right = np.eye(side**2), frame.reshape(-1, 3).astype(np.float64)
    for i, j in np.argwhere(missing):
        near = {(i + a, j + b): w for (a, b), w in WEIGHTS.items() if 0 <= i + a < side and 0 <= j + b < side}
        right[i * side + j] = 0
        for (k, m), weight in near.items():
            matrix[i * side + j, k * side + m] = -weight / sum(near.values())
    return np.linalg.solve(matrix, right).reshape(frame.shape)


def holes(side: int) -> np.ndarray:
    """Missing pixels (6, side, side): none, one, half at random, all but few, all but one, and a large hole."""
    missing = np.random.default_rng(1).random((6, side, side)) < np.array([0, 0, 0.5, 0.93, 1, 0])[:, None, None]
    missing[1, 1, 0] = missing[5, 2:-1, : side // 2] = True
    missing[3, 2, 2] = missing[4, -1, 1] = False
    return missing


@pytest.mark.parametrize("side", [3, 8, 33])
def test_imputed_pixels_solve_the_dense_system(side: int) -> None:
    frame, missing = random_frames(1, side)[0], holes(side)
    exact = np.stack([dense(frame, own) for own in missing])
    precise, quick = imputed(frame, missing, 1e-3).numpy(), imputed(frame, missing).numpy()
    np.testing.assert_allclose(precise, exact, atol=1e-2)
    np.testing.assert_allclose(quick, exact, atol=0.5)
    assert precise.dtype == np.float32
    present = np.broadcast_to(~missing[..., None], precise.shape)
    np.testing.assert_array_equal(quick[present], np.broadcast_to(frame, precise.shape)[present])


def test_a_ramp_is_imputed_exactly() -> None:
    missing = np.zeros((1, 64, 64), np.bool_)
    missing[0, 3:-3, 3:-3] = True
    ramp = np.broadcast_to(np.arange(64.0)[:, None, None] * 2 + np.arange(64.0)[:, None], (64, 64, 3))
    np.testing.assert_allclose(imputed(ramp, missing, 1e-3)[0], ramp, atol=1e-2)


@PEER
def test_imputed_pixels_are_those_of_pytorch_grad_cam() -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    frame, missing = random_frames(1, 40)[0], holes(40)[2:]
    x = normalized(frame[None])[0].float()
    for own, ours in zip(missing, imputed(frame, missing, 1e-4), strict=True):
        theirs = road.NoisyLinearImputer(noise=0)(x, torch.from_numpy(~own).float())
        np.testing.assert_allclose((ours.numpy() - 128) / 255, np.moveaxis(theirs.numpy(), 0, 2), atol=1e-4)


@PEER
def test_values_are_those_of_pytorch_grad_cam(monkeypatch: pytest.MonkeyPatch) -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    monkeypatch.setattr(imputation, "NOISE", 0.0)
    network = pooled()
    maps = np.abs(random_maps(3, 20))
    ask = Inquiry(batch_of(network, 20), "gradcam", maps)
    ours = check_values(Road(), ask)
    x, targets = normalized(ask.batch.frames).float(), [lambda y, c=c: y.softmax(0)[c] for c in ask.batch.targets]
    for kind, name in ((road.ROADMostRelevantFirst, "road-morf"), (road.ROADLeastRelevantFirst, "road-lerf")):
        for level in range(9):
            # their percentile is the share that stays
            metric = kind(90 - 10 * level)
            metric.perturbation.imputer.noise = 0
            theirs = metric(x, maps / 400, targets, lambda y: network.module(y.double()), return_diff=False)
            np.testing.assert_allclose(ours[name][:, level], theirs, atol=1e-4)
    np.testing.assert_allclose(ours["road"], (ours["road-lerf"] - ours["road-morf"]).mean(1) / 2)


def test_noise_depends_on_key_and_seed_alone() -> None:
    ask = Inquiry(batch_of(pooled(), 9), "gradcam", random_maps(3, 3))
    values = check_values(Road(levels=4), ask)
    batch = ask.batch
    renamed = ImageBatch(["x", *batch.keys[1:]], batch.frames, batch.targets, batch.labels, batch.boxes, batch.network)
    other = Road(levels=4).values(Inquiry(renamed, "gradcam", ask.maps))
    np.testing.assert_array_equal(other["road"] == values["road"], [False, True, True])
    assert not np.any(Road(levels=4, seed=1).values(ask)["road"] == values["road"])


def test_the_noise_has_the_deviation_of_the_paper_where_pixels_are_missing() -> None:
    frame = np.full((64, 64, 3), 100, np.uint8)
    missing = np.ones((1, 64, 64), np.bool_)
    missing[0, :, :8] = False
    noisy = imputation._noisy(frame, missing, np.random.default_rng(0).standard_normal((64, 64, 3), np.float32))
    np.testing.assert_array_equal(noisy[0, :, :8], 100)
    assert noisy[0, :, 8:].std() == pytest.approx(2.55, rel=0.03)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_constant_maps_have_values(value: float) -> None:
    values = check_values(Road(levels=2), Inquiry(batch_of(pooled(), 8), "a", np.full((3, 4, 4), value, np.float32)))
    assert all(np.isfinite(own).all() for own in values.values())


def test_points_and_parameters() -> None:
    np.testing.assert_allclose(Road().points("road-morf"), np.arange(1, 10) / 10)
    assert Road().canonical == "road:levels=9,seed=0"
    with pytest.raises(KeyError):
        Road().points("road")
    with pytest.raises(OptionError, match="from 1 to 99"):
        Road(levels=0)
