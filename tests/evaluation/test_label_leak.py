"""Label leakage through maps of the label, on figures that a run explains on its own classes, and its caveats."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.images.record import Split
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.shard import Pair
from tests.evaluation.runs import Notes, rewrite, run_on, shards_of
from tests.training.examples import CLASSES, labeled_rows
from tests.training.leaky import leaky

OWN = {"weights": "default", "size": None}
IMAGES = 96


@pytest.fixture(scope="module")
def figure_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of three classes as image files, half for training and half for validation."""
    root, rows = tmp_path_factory.mktemp("figure-images") / "images", labeled_rows(IMAGES)
    for number, (image, label) in enumerate(zip(rows.images, rows.labels.tolist(), strict=True)):
        path = root / ("train", "validation")[number // 3 % 2] / CLASSES[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def source(figure_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline that was trained on them for one epoch and classifies two of three correctly."""
    folder = tmp_path_factory.mktemp("source")
    return run_on(shards_of(figure_images, folder / "shards", size=32), folder / "run", arch="baseline")


@pytest.fixture(scope="module")
def label_shards(figure_images: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label-shards") / "shards"
    return shards_of(figure_images, folder, model=str(source), target="label", **OWN)


@pytest.fixture(scope="module")
def label_run(label_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on(label_shards, tmp_path_factory.mktemp("label-run") / "run", allow_leaks=("label-maps",))


def recovered(pairs: Sequence[Pair], every: Sequence[Pair]) -> float:
    """The share of validation images whose class is that of the most similar map among all classes' maps."""
    right = []
    for pair, all_maps in zip(pairs, every, strict=True):
        if pair.split == Split.VALIDATION:
            distances = ((all_maps.maps["gradcam"] - pair.maps["gradcam"]) ** 2).sum(axis=(1, 2))
            right.append(all_maps.targets["gradcam"][distances.argmin()] == pair.label)
    return float(np.mean(right))


def test_maps_of_the_label_give_the_class_away_and_are_refused(
    figure_images: Path, source: Path, label_shards: Path, tmp_path: Path
) -> None:
    predicted, every = (
        list(ShardFolder(shards_of(figure_images, tmp_path / name, model=str(source), target=target, **OWN)))
        for name, target in (("predicted", "predicted"), ("every", "top:3"))
    )
    validation = [pair for pair in predicted if pair.split == Split.VALIDATION]
    accuracy = float(np.mean([pair.prediction_class[0] == pair.label for pair in validation]))
    assert accuracy < 0.9
    assert recovered(list(ShardFolder(label_shards)), every) >= 0.99
    assert recovered(predicted, every) == pytest.approx(accuracy, abs=0.05)
    with pytest.raises(SalpipeError, match=r"explain every image's own label .* --target predicted"):
        run_on(label_shards, tmp_path / "run")
    # of the predicted class there is no such leak, and the source model was trained on the training part alone
    run_on(tmp_path / "predicted", tmp_path / "run")


def test_an_evaluation_on_maps_of_the_label_says_so(label_shards: Path, label_run: Path, tmp_path: Path) -> None:
    notes = Notes()
    evaluation = evaluate(label_run, label_shards, "validation", tmp_path / "out", device="cpu", progress=notes)
    caveats = evaluation.caveats
    assert [caveat.partition(":")[0] for caveat in caveats[:1]] == ["the best epoch was chosen by these images"]
    (caveat,) = caveats[1:]
    assert caveat.startswith("the maps explain every image's own label (--target label), those of evaluated images too")
    assert caveat.endswith("the figures do not hold for new images")
    assert notes.notes == caveats
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["caveats"] == caveats


def test_an_evaluation_on_maps_of_images_that_their_source_saw_says_so(
    label_shards: Path, label_run: Path, baseline: Path, tmp_path: Path
) -> None:
    caveats = evaluate(label_run, label_shards, "train", tmp_path / "out", device="cpu").caveats
    assert caveats[0].startswith("the network was trained on these images")
    assert "was trained on 48 of the 48 evaluated images: the figures do not hold for new images" in caveats[2]
    unknown = leaky(tmp_path / "unknown", model="runs/source", weights="trained")
    on_figures = run_on(leaky(tmp_path / "plain"), tmp_path / "run")
    caveats = evaluate(on_figures, unknown, "test", tmp_path / "other", device="cpu").caveats
    assert caveats[0].startswith("the source model runs/source of the maps does not record all images it was")
    on_baseline = run_on(tmp_path / "plain", tmp_path / "baseline", arch="baseline")
    assert evaluate(on_baseline, unknown, "test", tmp_path / "none", device="cpu").caveats == []


def test_an_evaluation_knows_the_images_of_training_without_their_shards(tmp_path: Path) -> None:
    shards = leaky(tmp_path / "shards")
    run = run_on(shards, tmp_path / "run")
    trained = load_trained(run)
    rewrite(trained, tmp_path / "old.safetensors", trained.about)
    shutil.rmtree(shards)
    again = leaky(tmp_path / "again")
    caveats = evaluate(run, again, "all", tmp_path / "a", device="cpu").caveats
    assert caveats[0].startswith("the network was trained on 24 of these 48 images")
    old = evaluate(tmp_path / "old.safetensors", again, "all", tmp_path / "b", device="cpu").caveats
    assert "the run does not record all images it was trained on: some of these images may be among them" in old
