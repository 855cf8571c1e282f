"""Predictions: the probabilities that the network computes by itself, whatever the batches, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.predictions import find_device, highest, predict_probabilities, recorded_config
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import TINY, rewrite
from tests.training.examples import labeled


def test_probabilities_are_those_of_the_network_by_itself(figure_run: Path, figures: Path) -> None:
    trained, pairs = load_trained(figure_run), ShardFolder(figures)
    rows = np.array([70, 3, 3, 41])
    images = torch.stack([torch.from_numpy(pairs[i].image.copy()).permute(2, 0, 1) for i in rows.tolist()])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trained.preprocessing.mean, trained.preprocessing.std))
    maps = torch.stack([torch.from_numpy(pairs[i].maps["gradcam"][:1]) for i in rows.tolist()])
    maps = functional.interpolate(maps, (32, 32), mode="bilinear", align_corners=False)
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    with torch.inference_mode():
        logits = trained.network((images / 255 - mean) / std, (maps - low) / (high - low))
    expected = logits.double().softmax(1).numpy()

    result = predict_probabilities(load_trained(figure_run), pairs, rows, device="cpu")
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, atol=1e-5)
    one_by_one = predict_probabilities(load_trained(figure_run), pairs, rows, batch_size=1, device="cpu")
    np.testing.assert_allclose(one_by_one, result, atol=1e-5)


def test_the_recorded_map_is_read(figures: Path, figure_run: Path, tmp_path: Path) -> None:
    trained, rows = load_trained(figure_run), np.arange(8)
    other = dict(trained.about["config"], method="gradient-simonyan", map_target=1)
    rewrite(trained, tmp_path / "other.safetensors", trained.about | {"config": other})
    probabilities = [
        predict_probabilities(load_trained(path), ShardFolder(figures), rows, device="cpu")
        for path in (figure_run, tmp_path / "other.safetensors")
    ]
    assert abs(probabilities[0] - probabilities[1]).max() > 1e-3


def test_no_rows_give_no_predictions(figure_run: Path, figures: Path) -> None:
    result = predict_probabilities(load_trained(figure_run), ShardFolder(figures), np.arange(0), device="cpu")
    assert result.shape == (0, 3)


def test_an_output_that_is_not_finite_names_the_image(figure_run: Path, figures: Path) -> None:
    trained = load_trained(figure_run)
    next(iter(trained.network.parameters())).fill_(float("nan"))
    with pytest.raises(SalpipeError, match=r"3 of 3 images, first 'stripe/0005.jpg', is not finite; train"):
        predict_probabilities(trained, ShardFolder(figures), np.array([5, 6, 7]), device="cpu")


def test_maps_of_the_runs_method_are_needed(figure_run: Path, tmp_path: Path) -> None:
    trained = load_trained(figure_run)
    rewrite(trained, tmp_path / "n.safetensors", trained.about | {"config": trained.about["config"] | {"method": "x"}})
    pairs = ShardFolder(labeled(tmp_path / "shards", 24))
    with pytest.raises(SalpipeError, match=r"no maps of 'x', .*\(it holds gradcam, gradient-simonyan\); make them"):
        predict_probabilities(load_trained(tmp_path / "n.safetensors"), pairs, np.arange(2))
    with pytest.raises(SalpipeError, match=r"no maps of 'x', .*; make them"):
        evaluate(tmp_path / "n.safetensors", pairs.path, "test", tmp_path / "evaluation", device="cpu")


def test_the_configuration_of_training_is_read_back(figure_run: Path, tmp_path: Path) -> None:
    config = recorded_config(load_trained(figure_run))
    assert (config.backbone, config.method, config.augment) == (TINY.backbone, "gradcam", TINY.augment)
    for record in ({}, {"config": None}, {"config": {"augment": [], "unheard": 1}}, {"config": {"arch": "baseline"}}):
        rewrite(load_trained(figure_run), tmp_path / "silent.safetensors", record)
        with pytest.raises(SalpipeError, match="has no valid record of its options"):
            recorded_config(load_trained(tmp_path / "silent.safetensors"))


@pytest.mark.parametrize("name", ["mps", "cuda:99", "cuda:x", "", "meta"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(SalpipeError, match="not available here; use --device cpu"):
        find_device(name)


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 8)), elements=st.sampled_from([0.0, 0.25, 0.5])))
def test_the_highest_come_first_and_of_equals_the_lower_class(values: np.ndarray) -> None:
    classes, scores = highest(values)
    assert classes.shape == scores.shape == (len(values), min(5, values.shape[1]))
    for row, own, score in zip(values.tolist(), classes.tolist(), scores.tolist(), strict=True):
        assert own == sorted(range(len(row)), key=lambda i: (-row[i], i))[:5]
        assert score == [row[i] for i in own]
