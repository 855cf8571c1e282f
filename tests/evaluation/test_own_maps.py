"""Networks that were trained on maps of the true boxes or of their own baseline: evaluation and predictions."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.predict import predict
from saliency_pipeline.evaluation.predictions import predict_probabilities
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data.self_maps import BaselineRun, SelfMaps, computed_method
from saliency_pipeline.uses.mask import Mask
from tests.evaluation.runs import PHOTOGRAPHS, Notes, rewrite, run_on, shards_of
from tests.training.boxed import boxed
from tests.training.examples import labeled

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shown(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the photographs with a box of each."""
    root = tmp_path_factory.mktemp("shown")
    lines = ["file,xmin,ymin,xmax,ymax"]
    for name in PHOTOGRAPHS:
        with Image.open(photos / name) as image:
            lines.append(f"{name},{image.width // 4},10,{image.width // 2},{image.height // 2}")
    (root / "boxes.csv").write_text("\n".join(lines))
    return shards_of(photos, root / "shards", boxes=root / "boxes.csv")


@pytest.fixture(scope="module")
def plain(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline whose network makes maps; tests that change it copy it."""
    return run_on(shown, tmp_path_factory.mktemp("plain") / "run", arch="baseline")


@pytest.fixture(scope="module")
def own_run(shown: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zooming network on maps of that baseline."""
    folder = tmp_path_factory.mktemp("own-run") / "run"
    return run_on(shown, folder, use="zoom", maps="self", from_baseline=str(plain))


@pytest.fixture(scope="module")
def oracle_run(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modulated network on maps of the true boxes."""
    return run_on(shown, tmp_path_factory.mktemp("oracle-run") / "run", maps="oracle")


@pytest.mark.parametrize("method", ["gradcam", "smoothgrad:samples=2"])
def test_maps_are_those_that_generate_stores_for_the_same_images(
    photos: Path, shown: Path, plain: Path, tmp_path: Path, method: str
) -> None:
    options = {"model": str(plain), "weights": "default", "methods": (method,), "backend": "torch", "precision": "fp32"}
    stored, pairs, rows = (
        ShardFolder(shards_of(photos, tmp_path / "shards", **options)),
        ShardFolder(shown),
        np.arange(12),
    )
    assert stored.keys() == pairs.keys()
    source = SelfMaps(pairs, BaselineRun.open(plain), computed_method(method))
    source.prepare(rows, CPU, Notes())
    (name,) = stored.methods
    expected = stored.stored_maps_at(rows, name).astype(np.float32) * stored.scales_at(rows, name)[:, None, None]
    np.testing.assert_array_equal(source.at(rows), expected)
    assert expected.any()


def test_a_network_on_the_true_boxes_is_evaluated_where_there_are_boxes(
    shown: Path, tiny_shards: Path, oracle_run: Path, tmp_path: Path
) -> None:
    evaluation = evaluate(oracle_run, shown, "all", tmp_path / "out", device="cpu", progress=(notes := Notes()))
    assert (evaluation.metrics.images, evaluation.method) == (12, None)
    assert not any("maps" in note for note in notes.notes)
    with pytest.raises(SalpipeError, match="holds no boxes of objects; generate it again with 'salpipe generate --box"):
        evaluate(oracle_run, tiny_shards, "all", tmp_path / "other", device="cpu")


def test_new_images_have_no_true_boxes(photos: Path, oracle_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SalpipeError, match=r"was trained on maps of the true boxes \(--maps oracle\), which new"
    ) as error:
        predict(photos, oracle_run, tmp_path / "out", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_new_images_get_maps_by_the_recorded_baseline(
    photos: Path, shown: Path, plain: Path, own_run: Path, tmp_path: Path
) -> None:
    evaluate(own_run, shown, "all", tmp_path / "evaluation", device="cpu")
    assert predict(photos, own_run, tmp_path / "out", device="cpu").images == 12
    assert ShardFolder(tmp_path / "out/shards").source["weights_sha256"] == BaselineRun.open(plain).sha256
    tables = []
    for name in ("evaluation", "out"):
        with open(tmp_path / name / "predictions.csv", newline="") as file:
            tables.append({row["key"]: float(row["score"]) for row in csv.DictReader(file)})
    assert tables[0].keys() == tables[1].keys()
    assert tables[1] == pytest.approx(tables[0], abs=1e-5)
    with pytest.raises(OptionError, match="--target predicted: is for runs trained on maps of the labels"):
        predict(photos, own_run, tmp_path / "again", target="predicted", device="cpu")


def test_frames_larger_than_the_networks_get_maps_like_those_of_training(photos: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path / "shards")
    plain = run_on(shards, tmp_path / "plain", arch="baseline", size=48)
    run = run_on(shards, tmp_path / "run", use="zoom", maps="self", from_baseline=str(plain), size=48)
    assert predict(photos, run, tmp_path / "out", device="cpu").images == 12
    pairs = ShardFolder(tmp_path / "out/shards")
    assert pairs.header.size == 64
    rows, trained = np.arange(12), load_trained(run)
    stored = predict_probabilities(trained, ShardFolder(shards), rows, device="cpu")
    new = predict_probabilities(trained, pairs, rows, device="cpu")
    np.testing.assert_allclose(new, stored, atol=1e-6)


def test_a_moved_and_a_changed_baseline_are_noticed(photos: Path, shown: Path, plain: Path, tmp_path: Path) -> None:
    baseline = Path(shutil.copytree(plain, tmp_path / "baseline"))
    run = run_on(shown, tmp_path / "run", maps="self", from_baseline=str(baseline))
    trained = load_trained(baseline)
    rewrite(trained, baseline / "best.safetensors", {**trained.about, "note": "trained for longer"})
    for attempt in (
        lambda: evaluate(run, shown, "all", tmp_path / "out", device="cpu"),
        lambda: predict(photos, run, tmp_path / "new", device="cpu"),
    ):
        with pytest.raises(SalpipeError, match=r"are made by the network of .*another one now .*; put the") as error:
            attempt()
        assert "\n" not in str(error.value)
    shutil.rmtree(baseline)
    with pytest.raises(
        SalpipeError, match=r"made by the network of a baseline, which cannot be read \(.*baseline: no su"
    ):
        evaluate(run, shown, "all", tmp_path / "out", device="cpu")
    assert predict(photos, run, tmp_path / "moved", weights=str(plain), device="cpu").images == 12


def test_a_baseline_that_saw_the_evaluated_images_is_a_caveat(tmp_path: Path) -> None:
    shards = boxed(tmp_path / "shards")
    plain = run_on(shards, tmp_path / "plain", arch="baseline")
    run = run_on(shards, tmp_path / "run", maps="self", from_baseline=str(plain))
    caveats = evaluate(run, shards, "test", device="cpu").caveats
    assert caveats == []
    assert any("the network that makes the maps was trained on" in c for c in evaluate(run, shards, "all").caveats)
    other = labeled(tmp_path / "other", 24, seed=5)
    assert evaluate(run, other, "all", tmp_path / "out", device="cpu").metrics.images == 24


@pytest.mark.slow
@pytest.mark.parametrize("use", ["attention-loss", "pool"])
def test_uses_that_read_features_are_predicted_with(
    photos: Path, shown: Path, plain: Path, tmp_path: Path, use: str
) -> None:
    run = run_on(shown, tmp_path / "run", use=use, maps="self", from_baseline=str(plain))
    evaluation = evaluate(run, shown, "all", device="cpu")
    assert evaluation.metrics.images == 12
    assert predict(photos, run, tmp_path / "out", device="cpu").images == 12
    oracle = run_on(shown, tmp_path / "oracle", use=use, maps="oracle")
    evaluate(oracle, shown, "all", device="cpu")
    if use == "pool":
        with pytest.raises(SalpipeError, match="was trained on maps of the true boxes"):
            predict(photos, oracle, tmp_path / "new", device="cpu")
    else:
        assert predict(photos, oracle, tmp_path / "new", device="cpu").images == 12


def test_a_use_without_maps_at_test_needs_no_baseline_then(
    photos: Path, shown: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mask, "at_test", False)
    baseline = shutil.copytree(plain, tmp_path / "plain")
    run = run_on(shown, tmp_path / "run", use="mask", maps="self", from_baseline=str(baseline))
    shutil.rmtree(baseline)
    evaluate(run, shown, "validation", device="cpu", progress=(notes := Notes()))
    assert predict(photos, run, tmp_path / "out", device="cpu").images == 12
    notes.find("the network that makes the maps does not record all images it was trained on")
