"""`evaluate`: the figures of training again, the files, which images a split means, and what does not fit."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import Evaluation, evaluate
from saliency_pipeline.evaluation.predictions import recorded_config
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data.split import choose_split
from saliency_pipeline.training.setup import split_of
from tests.evaluation.runs import Notes, rewrite, run_on, shards_of
from tests.training.examples import labeled, labeled_rows, store


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tested(figure_run: Path, figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate(figure_run, figures, "test", tmp_path_factory.mktemp("tested"), device="cpu")


def test_validation_gives_what_training_measured(figure_run: Path, figures: Path) -> None:
    evaluation = evaluate(figure_run, figures, device="cpu")
    assert evaluation.folder == figure_run / "evaluation-validation"
    rows = [json.loads(line) for line in (figure_run / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["validation_top1"])
    m = evaluation.metrics
    assert evaluation.epoch == best["epoch"]
    assert (m.images, m.top1) == (24, best["validation_top1"])
    assert m.macro_f1 == pytest.approx(best["validation_macro_f1"])
    assert m.nll == pytest.approx(best["validation_loss"], abs=1e-4)
    assert evaluation.network_sha256 == load_trained(figure_run).sha256


def test_what_limits_the_figures_is_kept_with_them(figure_run: Path, figures: Path, tmp_path: Path) -> None:
    chosen = (
        "the best epoch was chosen by these images: the figures are optimistic; use --split test for held-out images"
    )
    trained = "the network was trained on these images: the figures do not hold for new ones"
    for split, caveats in (("validation", [chosen]), ("train", [trained]), ("test", [])):
        notes = Notes()
        evaluation = evaluate(figure_run, figures, split, tmp_path / split, device="cpu", progress=notes)
        assert evaluation.caveats == notes.notes == caveats
        assert json.loads((tmp_path / split / "evaluation.json").read_text())["caveats"] == caveats


def test_files_agree_with_one_another(tested: Evaluation, figures: Path) -> None:
    m = tested.metrics
    assert json.loads((tested.folder / "evaluation.json").read_text()) == tested.to_json()
    assert tested.split == "test"
    assert tested.method == "gradcam"
    rows = table(tested.folder / "predictions.csv")
    tests = [pair for pair in ShardFolder(figures) if pair.split == 2]
    assert [(row["key"], row["label"]) for row in rows] == [(pair.key, pair.class_name) for pair in tests]
    assert np.mean([row["correct"] == "1" for row in rows]) == m.top1
    assert {row["key"] for row in rows if row["predicted"] == row["label"]} == {
        row["key"] for row in rows if row["correct"] == "1"
    }
    for row in rows:
        scores = [float(row[name]) for name in ("score", "score_2", "score_3")]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        by_class = dict(zip((row["predicted"], row["class_2"], row["class_3"]), scores, strict=True))
        assert float(row["label_score"]) == by_class[row["label"]]
    assert list(rows[0])[-1] == "score_3"

    classes = table(tested.folder / "per-class.csv")
    assert [row["class"] for row in classes] == ["circle", "square", "stripe"]
    assert [int(row["support"]) for row in classes] == [8, 8, 8]
    for row in classes:
        assert 0 <= float(row["recall_low"]) <= float(row["recall"]) <= float(row["recall_high"]) <= 1
    assert [sum(row) for row in m.to_json()["confusion"]] == [8, 8, 8]
    for name in ("confusion.png", "reliability.png"):
        with Image.open(tested.folder / name) as picture:
            assert min(picture.size) > 300


def test_folds_are_those_of_the_run(figures: Path, tmp_path: Path) -> None:
    run = run_on(figures, tmp_path / "run", folds=4, fold=2, seed=7, per_class=5, arch="baseline")
    pairs, notes = ShardFolder(figures), Notes()
    split = choose_split(pairs.labels, pairs.splits, pairs.classes, folds=4, fold=2, seed=7)
    for name, rows in (("validation", split.validation), ("train", split.train)):
        evaluation = evaluate(run, figures, name, device="cpu", progress=notes)
        keys = [row["key"] for row in table(evaluation.folder / "predictions.csv")]
        assert keys == [pairs[row].key for row in rows.tolist()]
        assert evaluation.fold == "2/4"
    assert notes.find("the network was trained on") == (
        "the network was trained on 15 of these 54 images: the figures do not hold for new ones"
    )
    assert evaluate(run, figures, "test", device="cpu").metrics.images == 24

    other = labeled(tmp_path / "other", 48, seed=3)
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["plan"] == "plan-labeled"
    trained = load_trained(run)
    rewrite(trained, tmp_path / "n.safetensors", trained.about | {"shards": {"sha256": "another", "provenance": {}}})
    evaluate(tmp_path / "n.safetensors", other, "validation", tmp_path / "out", device="cpu", progress=notes)
    assert notes.find("the run does not record all images it was trained on: some of these images may be among them")


def test_an_inner_split_is_that_of_the_run(figures: Path, tmp_path: Path) -> None:
    run = run_on(figures, tmp_path / "run", folds=4, fold=2, per_class=5, arch="baseline", inner_split=True)
    pairs = ShardFolder(figures)
    split = split_of(recorded_config(load_trained(run)), pairs)
    for name, rows in (("validation", split.validation), ("train", split.train)):
        folder = evaluate(run, figures, name, device="cpu").folder
        assert [row["key"] for row in table(folder / "predictions.csv")] == pairs.keys_at(rows)


def test_images_of_training_are_recognized_in_shards_with_another_split(
    figures: Path, figure_run: Path, tmp_path: Path
) -> None:
    rows = labeled_rows(96)
    rows.keys[:] = [f"copy of {key}" for key in rows.keys]
    # of those that validate now half were trained on, the others validated
    rows.splits[:] = np.array([2, 1, 1, 0])[np.arange(96) // 3 % 4]
    again = store(tmp_path / "again", replace(ShardFolder(figures).header, plan="another"), rows)
    before = evaluate(figure_run, figures, device="cpu")
    notes = Notes()
    evaluation = evaluate(figure_run, again, device="cpu", progress=notes)
    assert notes.notes == [
        "the network was trained on 24 of these 48 images: the figures do not hold for new ones",
        "the best epoch was chosen by 24 of these 48 images: the figures are optimistic; use --split test for held-out "
        "images",
    ]
    assert evaluation.folder == figure_run / "evaluation-validation-again"
    assert json.loads((before.folder / "evaluation.json").read_text()) == before.to_json()
    assert evaluate(figure_run, again, "train", tmp_path, device="cpu", progress=notes).metrics.images == 24
    assert len(notes.notes) == 2


def test_everything_is_partly_remembered(figure_run: Path, figures: Path, tmp_path: Path) -> None:
    notes = Notes()
    assert evaluate(figure_run, figures, "all", tmp_path, device="cpu", progress=notes).metrics.images == 96
    assert notes.find("trained on 48 of these 96 images")
    notes = Notes()
    evaluate(figure_run, figures, "test", tmp_path, device="cpu", progress=notes)
    assert notes.notes == []


def test_other_frames_and_other_maps_are_noted(photos: Path, photo_run: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path / "shards", size=48)
    notes = Notes()
    evaluation = evaluate(photo_run, shards, "all", tmp_path / "out", device="cpu", progress=notes)
    assert (evaluation.metrics.images, evaluation.size) == (12, 48)
    assert notes.notes[0].startswith("the network was trained on 8 of these 12 images")
    assert notes.notes[1].startswith("the best epoch was chosen by 4 of these 12 images")
    assert notes.notes[2] == "frames of 48 pixels, but the network was trained on 64"
    assert notes.notes[3].startswith(
        "maps from elsewhere than in training: model efficientnet_lite0 -> test_resnet; we"
    )


def test_frames_too_small_for_the_network(photos: Path, photo_run: Path, tmp_path: Path) -> None:
    trained = load_trained(photo_run)
    shards = shards_of(photos, tmp_path / "shards", size=48)
    trained.network.backbone.register_forward_pre_hook(_only_64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saliency_pipeline.evaluation.evaluate.load_trained", lambda _: trained)
        with pytest.raises(SalpipeError, match=r"cannot run on frames of 48x48 \(wanted 64\); it was trained on 64x64"):
            evaluate(photo_run, shards, "all", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def _only_64(_module: object, inputs: tuple[object]) -> None:
    if tuple(inputs[0].shape[2:]) != (64, 64):  # type: ignore[attr-defined]
        raise RuntimeError("wanted 64")


def test_other_classes_are_refused_by_name(figure_run: Path, tmp_path: Path) -> None:
    fewer = labeled(tmp_path / "fewer", classes=2)
    with pytest.raises(SalpipeError, match=r"class 3 is no such class, in the run 'stripe' \(2 and 3 classes\)"):
        evaluate(figure_run, fewer)
    more = labeled(tmp_path / "more", classes=4)
    with pytest.raises(SalpipeError, match=r"class 4 is 'cross', in the run no such class \(4 and 3 classes\)"):
        evaluate(figure_run, more)
    assert not (figure_run / "evaluation-test").exists()


def test_an_empty_split(photo_run: Path, photo_shards: Path) -> None:
    with pytest.raises(SalpipeError, match=r"--split test: .*\(they have 8 train, 4 validation\); choose another"):
        evaluate(photo_run, photo_shards, "test")
    with pytest.raises(SalpipeError, match="--split tset: unknown; choose one of train, validation, test, all"):
        evaluate(photo_run, photo_shards, "tset")


def test_the_file_of_a_network_needs_an_output(figure_run: Path, figures: Path, tmp_path: Path) -> None:
    file = shutil.copy(figure_run / "best.safetensors", tmp_path / "mine.safetensors")
    with pytest.raises(SalpipeError, match="a network outside a run; name the folder of its evaluation with -o"):
        evaluate(file, figures)
    evaluation = evaluate(file, figures, output=tmp_path / "a" / "b", device="cpu")
    assert (evaluation.folder / "evaluation.json").is_file()
    with pytest.raises(SalpipeError, match="holds no trained network"):
        evaluate(tmp_path, figures)


def test_an_output_that_cannot_be_written(figure_run: Path, figures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    with pytest.raises(SalpipeError, match=r"cannot write .*file"):
        evaluate(figure_run, figures, output=tmp_path / "file", device="cpu")
