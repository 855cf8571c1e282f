"""`predict`: the same predictions as in evaluation, on maps like those of training, for unlabeled images."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import save_file

from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.predict import Predicted, predict
from saliency_pipeline.generation import recorded as module
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.saliency.methods import registry
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import PHOTOGRAPHS, Notes, altered, rewrite, run_on, shards_of
from tests.gallery.test_page import Page
from tests.generation.compared import Compared
from tests.generation.examples import photographs


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predicted(photos: Path, photo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return predict(photos, photo_run, tmp_path_factory.mktemp("predicted") / "out", device="cpu")


def test_predictions_are_those_of_evaluation(
    predicted: Predicted, photo_run: Path, photo_shards: Path, tmp_path: Path
) -> None:
    evaluated = evaluate(photo_run, photo_shards, "all", tmp_path, device="cpu")
    expected = table(evaluated.folder / "predictions.csv")
    rows = table(predicted.predictions)
    assert [row["key"] for row in rows] == [row["key"] for row in expected]
    assert [row["class"] for row in rows] == [row["predicted"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert float(row["score"]) == pytest.approx(float(other["score"]), abs=1e-5)
        assert float(row["score_2"]) == pytest.approx(float(other["score_2"]), abs=1e-5)
    assert list(rows[0]) == ["key", "class", "score", "class_2", "score_2"]


def test_the_maps_are_those_of_training(predicted: Predicted, photo_shards: Path) -> None:
    then, now = ShardFolder(photo_shards), ShardFolder(predicted.folder / "shards")
    for name in ("source", "methods", "resolved"):
        assert now.provenance[name] == then.provenance[name]
    assert now.classes == ()
    assert {pair.label for pair in now} == {-1}
    for old, new in zip(then, now, strict=True):
        assert (old.image == new.image).all()
        assert (old.maps["gradcam"] == new.maps["gradcam"]).all()


def test_the_document_the_report_and_the_table_agree(predicted: Predicted, photo_run: Path) -> None:
    document = json.loads((predicted.folder / "predictions.json").read_text())
    rows = table(predicted.predictions)
    assert (document["run"], document["images"], document["rejects"]) == (str(photo_run), 12, 0)
    assert (predicted.images, predicted.rejects) == (12, 0)
    for one, row in zip(document["predictions"], rows, strict=True):
        assert (one["key"], one["class"]) == (row["key"], row["class"])
        assert one["score"] == pytest.approx(float(row["score"]), abs=1e-5)
        assert [each["class"] for each in one["top"]] == [row["class"], row["class_2"]]
        assert one["top"][0] == {"class": one["class"], "score": one["score"]}
    counts = [sum(row["class"] == name for row in rows) for name in predicted.classes]
    assert list(predicted.classes.values()) == counts == sorted(counts, reverse=True)


def test_the_gallery_shows_the_trained_networks_predictions(predicted: Predicted) -> None:
    page = Page(predicted.page)
    document = json.loads((predicted.folder / "predictions.json").read_text())
    assert len(page.all("article")) == 12
    assert ", classified by run" in page.text
    for one in document["predictions"]:
        assert f"predicted {one['class']} {100 * one['score']:.1f} %" in page.text
    # the source model knows ImageNet's classes only
    assert page.text.count("explains") == 12
    with Image.open(predicted.folder / "contact-sheet.png") as sheet:
        assert sheet.size[0] > 300


def test_the_same_command_resumes(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    first = predict(photos, tiny_run, tmp_path / "out", count=3, device="cpu")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").glob("*.h5")}
    text = first.predictions.read_bytes()
    first.predictions.unlink()
    assert predict(photos, tiny_run, tmp_path / "out", count=3, device="cpu") == first
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert first.predictions.read_bytes() == text
    assert len(Page(first.page).all("article")) == 3
    one = photographs(tmp_path / "others", ["a.jpg"])
    with pytest.raises(PlanMismatchError, match="another plan"):
        predict(one, tiny_run, tmp_path / "out")


def test_bad_images_are_counted_and_good_ones_classified(tiny_run: Path, tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", ["deep/er/1.jpg", "2.png"])
    (images / "bad.jpg").write_bytes(b"not an image")
    result = predict(images, tiny_run, tmp_path / "out", device="cpu")
    assert (result.images, result.rejects) == (2, 1)
    assert [row["key"] for row in table(result.predictions)] == ["2.png", "deep/er/1.jpg"]
    assert "bad.jpg" in (tmp_path / "out" / "shards" / "rejects.jsonl").read_text()

    for name in ("deep/er/1.jpg", "2.png"):
        (images / name).unlink()
    with pytest.raises(SalpipeError, match=r"none of its 1 images can be used; see rejects.jsonl"):
        predict(images, tiny_run, tmp_path / "none", device="cpu")
    with pytest.raises(SalpipeError, match="no images found"):
        predict(images / "deep", tiny_run, tmp_path / "nothing", device="cpu")


def test_one_image(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    result = predict(photos / PHOTOGRAPHS[0], tiny_run, tmp_path / "out", device="cpu")
    assert [row["key"] for row in table(result.predictions)] == ["0.jpg"]


@pytest.mark.parametrize("arch", ["baseline", "learned"])
def test_a_network_without_maps_explains_itself(
    arch: str, photos: Path, tiny_shards: Path, baseline: Path, tmp_path: Path
) -> None:
    run = baseline if arch == "baseline" else run_on(tiny_shards, tmp_path / "run", arch=arch)
    result = predict(photos, run, tmp_path / "out", device="cpu")
    shards = ShardFolder(result.folder / "shards")
    assert shards.provenance["source"]["model"] == str(run)
    assert shards.provenance["source"]["classes"] == ["cat", "dog"]
    assert (shards.header.size, shards.methods) == (64, ("gradcam",))
    rows = table(result.predictions)
    for pair, row in zip(shards, rows, strict=True):
        assert row["class"] == ("cat", "dog")[int(pair.prediction_class[0])]
        assert float(row["score"]) == pytest.approx(float(pair.prediction_score[0]), abs=1e-4)
    assert "explains" not in Page(result.page).text
    with pytest.raises(SalpipeError, match="needs no maps, so there is no source model; leave out --weights"):
        predict(photos, run, tmp_path / "out", weights="x.safetensors")


def test_weights_of_a_file_are_given_again(photos: Path, tmp_path: Path) -> None:
    files = [tmp_path / "mine.safetensors", tmp_path / "other.safetensors"]
    for number, file in enumerate(files):
        state = load_source("test_resnet", "none").module.state_dict()
        save_file({name: tensor + number for name, tensor in state.items()}, file)
    run = run_on(shards_of(photos, tmp_path / "shards", weights=str(files[0])), tmp_path / "run")
    with pytest.raises(SalpipeError, match=r"by test_resnet with the weights of a file 'mine.safetensors'; give it"):
        predict(photos, run, tmp_path / "out")
    with pytest.raises(
        SalpipeError, match=r"other.safetensors: has other weights than the source model that made the maps"
    ):
        predict(photos, run, tmp_path / "out", weights=str(files[1]))
    with pytest.raises(SalpipeError, match="no such file"):
        predict(photos, run, tmp_path / "out", weights=str(tmp_path / "none.safetensors"))
    assert not (tmp_path / "out").exists()
    moved = shutil.move(files[0], tmp_path / "moved.safetensors")
    assert predict(photos, run, tmp_path / "out", weights=str(moved), device="cpu").images == 12


def test_a_file_may_hold_what_the_library_had_then(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    save_file(load_source("test_resnet", "none").module.state_dict(), tmp_path / "kept.safetensors")
    weights = str(tmp_path / "kept.safetensors")
    assert predict(photos, tiny_run, tmp_path / "out", weights=weights, device="cpu").images == 12
    changed = altered(tiny_run, tmp_path / "n.safetensors", source={"weights_sha256": "0" * 64})
    with pytest.raises(SalpipeError, match=r"test_resnet: has other weights .* \(SHA-256 000000000000…, here "):
        predict(photos, changed, tmp_path / "changed")


def test_a_run_on_label_maps_is_applied_to_other_maps_only_on_request(
    photos: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = altered(tiny_run, tmp_path / "n.safetensors", settings={"target": "label"})
    with pytest.raises(SalpipeError, match=r"n.safetensors: was trained on maps of .* own labels, .* add --target pre"):
        predict(photos, run, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    notes = Notes()
    result = predict(photos, run, tmp_path / "out", target="predicted", device="cpu", progress=notes)
    assert ShardFolder(result.folder / "shards").provenance["settings"]["target"] == "predicted"
    assert notes.find("maps explain the predicted class; in training they explained an image's own label")
    document = json.loads((result.folder / "predictions.json").read_text())
    assert (document["target"], document["target_of_training"]) == ("predicted", "label")
    assert "with maps of the predicted class (it was trained on maps of the labels)" in Page(result.page).text


def test_maps_from_elsewhere_are_not_computed_for_new_images(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    trained = load_trained(tiny_run)
    run = tmp_path / "n.safetensors"
    rewrite(trained, run, trained.about | {"config": trained.about["config"] | {"method": "given"}})
    with pytest.raises(SalpipeError, match=r"n.safetensors: was trained on maps from elsewhere, .* --maps-from FOLDER"):
        predict(photos, run, tmp_path / "out", device="cpu")


def test_an_option_for_label_maps_is_refused_for_other_runs(photos: Path, tiny_run: Path, baseline: Path) -> None:
    for run, message in ((tiny_run, "is for runs trained on maps of the labels"), (baseline, "needs no maps")):
        with pytest.raises(OptionError, match=f"--target predicted: .*{message}.*; leave it out"):
            predict(photos, run, photos / "out", target="predicted")
    with pytest.raises(OptionError, match="--target label: use predicted"):
        predict(photos, tiny_run, photos / "out", target="label")


def test_a_run_that_reads_no_map_does_not_need_that_option(photos: Path, tiny_shards: Path, tmp_path: Path) -> None:
    trained = run_on(tiny_shards, tmp_path / "run", maps="center-prior")
    run = altered(trained, tmp_path / "n.safetensors", settings={"target": "label"})
    result = predict(photos, run, tmp_path / "out", device="cpu")
    assert "target" not in json.loads((result.folder / "predictions.json").read_text())


def test_frames_and_targets_are_those_recorded(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    changes = {"target": "top:2", "fit": "pad", "max-pixels": 1_000_000, "encoding": "jpeg", "jpeg-quality": 60}
    resolved = {"layers": [{"name": "layer3"}]}
    run = altered(tiny_run, tmp_path / "n.safetensors", settings=changes, resolved=resolved)
    shards = ShardFolder(predict(photos, run, tmp_path / "out", device="cpu").folder / "shards")
    assert {name: shards.provenance["settings"][name] for name in changes} == changes
    assert shards.provenance["settings"]["layer"] == ["layer3"]
    assert shards.header.encoding == "jpeg"
    assert shards.header.maps["gradcam"].targets == 2


def test_images_are_compared_with_those_of_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.METHODS, "compared", Compared)
    shards = shards_of(photos, tmp_path / "shards", methods=("compared", "gradcam"))
    run, one = run_on(shards, tmp_path / "run", method="compared"), photos / PHOTOGRAPHS[-1]
    background, notes = ShardFolder(shards).provenance["background"], Notes()

    def predicted(name: str) -> dict[str, Any]:
        result = predict(one, run, tmp_path / name, device="cpu", progress=notes)
        return ShardFolder(result.folder / "shards").provenance

    assert predicted("first")["background"] == background
    shutil.rmtree(shards)
    assert not [note for note in notes.notes if "compares" in note]
    assert predicted("second")["background"]["images"] == 1
    assert notes.find("compared: compares with some of these images instead of those of training, whose shards are no")


@pytest.mark.parametrize(
    ("recorded", "bf16", "here"),
    [
        ({"backend": "torch", "precision": "bf16"}, True, ("torch", "bf16")),
        ({"backend": "torch", "precision": "bf16"}, False, ("torch", "fp32")),
        ({"backend": "openvino", "precision": "bf16"}, True, ("torch", "fp32")),
        ({"backend": "compile", "precision": "fp32", "device": "cuda:1"}, True, ("torch", "fp32")),
        ({"backend": "unheard", "precision": "fp8"}, True, ("torch", "fp32")),
    ],
)
def test_what_is_not_available_becomes_torch_fp32(
    recorded: dict[str, str],
    bf16: bool,
    here: tuple[str, str],
    photos: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "openvino_installed", lambda: False)
    monkeypatch.setattr(module, "computes_bf16_in", lambda _backend, _device: bf16)
    parts = {"resolved": recorded, "settings": {"device": recorded.get("device", "cpu")}}
    notes, run = Notes(), altered(tiny_run, tmp_path / "n.safetensors", **parts)
    result = predict(photos, run, tmp_path / "out", device="cpu", progress=notes)
    resolved = ShardFolder(result.folder / "shards").provenance["resolved"]
    assert (resolved["backend"], resolved["precision"]) == here
    notices = [note for note in notes.notes if "is not available here: torch fp32" in note]
    assert len(notices) == (recorded["precision"] != here[1] or recorded["backend"] != here[0])


def test_layers_are_needed_only_for_maps_that_explain_some(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path / "shards", methods=("gradient",))
    run = altered(
        run_on(shards, tmp_path / "run", method="gradient"), tmp_path / "n.safetensors", resolved={"layers": []}
    )
    assert predict(photos, run, tmp_path / "out", device="cpu").images == len(PHOTOGRAPHS)
    run = altered(tiny_run, tmp_path / "layers.safetensors", resolved={"layers": []})
    with pytest.raises(SalpipeError, match=r"\(no layers\)"):
        predict(photos, run, tmp_path / "none", device="cpu")


def test_shards_that_generate_did_not_write(photos: Path, figure_run: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"does not record how .* \(no settings, .*, weights_sha256\); train on"):
        predict(photos, figure_run, tmp_path / "out")
    odd = altered(figure_run, tmp_path / "odd.safetensors", settings={"fit": 1}, resolved={"layers": "x", "backend": 3})
    with pytest.raises(SalpipeError, match=r"\(no settings, layers, backend, precision, weights_sha256\)"):
        predict(photos, odd, tmp_path / "out")
    with pytest.raises(SalpipeError, match="holds no trained network"):
        predict(photos, tmp_path, tmp_path / "out")


def test_class_names_are_text_on_the_page(tmp_path: Path) -> None:
    names = ["<img src=x onerror=alert(1)>", "{{ 7 * 7 }}"]
    images = photographs(
        tmp_path / "images", [f"{part}/{name}/{i}.jpg" for part in ("train", "val") for name in names for i in (0, 1)]
    )
    run = run_on(shards_of(images, tmp_path / "shards"), tmp_path / "run")
    result = predict(images, run, tmp_path / "out", device="cpu")
    page = Page(result.page)
    (first, *_) = result.classes
    assert f"predicted {first}" in page.text
    assert not page.all("img", src="x")
    assert {row["class"] for row in table(result.predictions)} <= set(names)
