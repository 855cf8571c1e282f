"""Networks of attention pooling and attention loss: evaluation, prediction of plain images, export to ONNX."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.export import TOLERANCE, export
from saliency_pipeline.evaluation.predict import predict
from saliency_pipeline.evaluation.predictions import needs_maps
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import Notes, run_on

USES = {"pool": True, "attention-loss": False}
"""Uses, and whether new images need maps."""


@pytest.fixture(scope="module", params=USES)
def use(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(use: str, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on(tiny_shards, tmp_path_factory.mktemp("run") / "run", use=use)


def scores(path: Path) -> dict[str, tuple[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: (row.get("predicted") or row["class"], float(row["score"])) for row in csv.DictReader(file)}


def test_plain_images_are_predicted_as_in_evaluation(
    use: str, run: Path, tiny_shards: Path, photos: Path, tmp_path: Path
) -> None:
    evaluated = evaluate(run, tiny_shards, "all", tmp_path / "evaluated", device="cpu")
    assert (evaluated.method is not None) == USES[use]
    predicted = predict(photos, run, tmp_path / "predicted", device="cpu")
    # without maps of a source model those of the network itself are shown
    assert (ShardFolder(predicted.folder / "shards").source["model"] == str(run)) != USES[use]
    ours, theirs = scores(predicted.predictions), scores(evaluated.folder / "predictions.csv")
    assert ours.keys() == theirs.keys()
    for key, (name, score) in ours.items():
        assert name == theirs[key][0]
        assert score == pytest.approx(theirs[key][1], abs=1e-5)


def test_the_map_is_an_input_where_the_network_reads_it(use: str, run: Path, tmp_path: Path) -> None:
    exported = export(run, tmp_path / "model.onnx", progress=Notes())
    assert exported.error <= TOLERANCE
    assert list(exported.inputs) == (["image", "map"] if USES[use] else ["image"])
    model, trained = onnxruntime.InferenceSession(exported.file), load_trained(run)
    assert needs_maps(trained) == USES[use]
    metadata = model.get_modelmeta().custom_metadata_map
    assert metadata["use"] == ("" if use == "pool" else "attention-loss:variant=cyborg,weight=1")
    assert metadata["arch"] == ("pooled" if use == "pool" else "baseline")
    assert metadata["method"] == ("gradcam" if USES[use] else "")
    if not USES[use]:
        return
    image = np.random.default_rng(0).random((3, 3, trained.spec.size, trained.spec.size), np.float32)
    uniform, corner = np.ones_like(image[:, :1]), np.zeros_like(image[:, :1])
    corner[..., : trained.spec.size // 2, : trained.spec.size // 2] = 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trained.preprocessing.mean, trained.preprocessing.std))
    normalized = (torch.from_numpy(image) - mean) / std
    for maps in (uniform, corner, np.zeros_like(uniform)):
        (logits,) = model.run(["logits"], {"image": image, "map": maps})
        with torch.inference_mode():
            want = trained.network(normalized, torch.from_numpy(maps)).numpy()
        np.testing.assert_allclose(logits, want, atol=TOLERANCE * np.ptp(want) + 1e-6)


@pytest.mark.parametrize(("use_", "method"), [("zoom", "gradcam"), ("mask:floor=0.5", "gradcam")])
def test_what_is_part_of_preprocessing_is_named(tiny_shards: Path, tmp_path: Path, use_: str, method: str) -> None:
    run = run_on(tiny_shards, tmp_path / "run", use=use_, normalize="p99")
    exported = export(run, tmp_path / "model.onnx", progress=Notes())
    assert list(exported.inputs) == ["image"]
    metadata = onnxruntime.InferenceSession(exported.file).get_modelmeta().custom_metadata_map
    assert metadata["use"].partition(":")[0] == use_.partition(":")[0]
    assert (metadata["method"], json.loads(metadata["normalization"])["map"]) == (method, "p99")
