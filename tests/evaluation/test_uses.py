"""Uses of maps after training: `evaluate` agrees with training, and `predict` computes maps of plain images."""

import csv
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.predict import predict
from saliency_pipeline.evaluation.predictions import predict_probabilities
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import Notes, run_on, shards_of

pytestmark = pytest.mark.usefixtures("without_plots")

SIZE = 64
"""Side of the networks' frames; those of the shards have 96 pixels."""


@pytest.fixture(scope="module")
def large(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_of(photos, tmp_path_factory.mktemp("large") / "shards", size=96)


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        ({"arch": "baseline"}, False),
        ({"arch": "modulated"}, True),
        ({"use": "zoom:mass=0.3,margin=0"}, True),
        ({"use": "zoom:views=2,threshold=0.5"}, True),
        ({"use": "mask"}, True),
        ({"use": "keep"}, False),
        ({"use": "mix"}, False),
    ],
    ids=str,
)
def test_frames_larger_than_the_networks_are_trained_on_evaluated_and_predicted(
    photos: Path, large: Path, tmp_path: Path, options: dict[str, str], maps: bool
) -> None:
    """Validation in training, `evaluate` and `predict` of the images themselves give the same scores."""
    run, notes = run_on(large, tmp_path / "run", size=SIZE, **options), Notes()
    assert load_trained(run).spec.size == SIZE
    evaluated = evaluate(run, large, "all", tmp_path / "evaluation", device="cpu", progress=notes)
    assert not any("pixels, but the network was trained on" in note for note in notes.notes)
    assert (evaluated.method is not None) == maps
    scores = table(tmp_path / "evaluation" / "predictions.csv")
    validation = table(run / "validation.csv")
    assert len(validation) == 4
    for key, row in validation.items():
        assert float(row["score"]) == pytest.approx(float(scores[key]["score"]), abs=1e-4)
    result = predict(photos, run, tmp_path / "predicted", device="cpu")
    predicted = table(result.predictions)
    assert len(predicted) == len(scores) == 12
    for key, row in predicted.items():
        assert float(row["score"]) == pytest.approx(float(scores[key]["score"]), abs=1e-4)
    shards = ShardFolder(tmp_path / "predicted" / "shards")
    assert shards.header.size == 96
    if maps:
        assert shards.methods == ("gradcam",)


def test_shards_of_another_size_are_resized_to_the_runs(
    large: Path, photos: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    """Frames of 64 pixels for a network of 48, trained on frames of 96: resized like those."""
    run, notes = run_on(large, tmp_path / "run", size=48, use="zoom:mass=0.3"), Notes()
    evaluated = evaluate(run, tiny_shards, "all", tmp_path / "evaluation", device="cpu", progress=notes)
    assert evaluated.metrics.images == 12
    assert "frames of 64 pixels, but the network was trained on 96" in notes.notes


def test_two_views_average_the_logits_of_both(large: Path, tmp_path: Path) -> None:
    trained = load_trained(run_on(large, tmp_path / "run", size=SIZE, use="zoom:mass=0.3,margin=0,views=2"))
    pairs, rows = ShardFolder(large), np.arange(12)
    both = predict_probabilities(trained, pairs, rows, device="cpu")
    views = []
    for use in ("zoom:mass=0.3,margin=0,views=1", None):
        trained.about["config"]["use"] = use
        views.append(np.log(predict_probabilities(trained, pairs, rows, device="cpu")))
    # up to a constant per image, logarithms of probabilities are logits
    mean = np.exp((views[0] + views[1]) / 2)
    np.testing.assert_allclose(both, mean / mean.sum(1, keepdims=True), atol=1e-5)
    assert not np.allclose(both, np.exp(views[0]), atol=1e-4)
