"""A trained network as the source model of new shards, and of predictions by networks trained on those."""

import shutil
from pathlib import Path

import pytest

from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.evaluation.predict import predict
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import Notes, altered, rewrite, run_on, shards_of

OWN = {"weights": "default", "size": None}
"""Of a run as the source model, which brings both."""


def test_the_labels_of_a_run_are_its_own_classes(photos: Path, baseline: Path, tmp_path: Path) -> None:
    shards = ShardFolder(shards_of(photos, tmp_path / "label", model=str(baseline), target="label", **OWN))
    assert shards.provenance["source"]["classes"] == ["cat", "dog"]
    assert shards.provenance["source"]["weights_sha256"] == load_trained(baseline).sha256
    assert shards.header.size == 64
    assert [int(pair.targets["gradcam"][0]) for pair in shards] == [pair.label for pair in shards]

    named = ShardFolder(shards_of(photos, tmp_path / "named", model=str(baseline), target="dog", **OWN))
    assert {int(pair.targets["gradcam"][0]) for pair in named} == {1}
    other = ShardFolder(shards_of(photos, tmp_path / "predicted", model=str(baseline), **OWN))
    assert [int(pair.targets["gradcam"][0]) for pair in other] == [int(pair.prediction_class[0]) for pair in other]


def test_a_modulated_run_is_refused(photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match="needs maps itself; a source model is a run of --arch baseline or learned"):
        shards_of(photos, tmp_path / "shards", model=str(tiny_run), **OWN)


@pytest.mark.slow
def test_a_moved_and_a_changed_run_are_noticed(photos: Path, baseline: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(baseline, tmp_path / "run"))
    source = {"model": str(run), **OWN}
    shards = shards_of(photos, tmp_path / "shards", **source)
    modulated = run_on(shards, tmp_path / "modulated")
    assert predict(photos, modulated, tmp_path / "out", device="cpu").images == 12

    trained = load_trained(run)
    rewrite(trained, run / "best.safetensors", trained.about | {"note": "trained for longer"})
    with pytest.raises(PlanMismatchError, match=r"another plan \(weights_sha256 "):
        shards_of(photos, shards, **source)
    with pytest.raises(SalpipeError, match="run: has other weights than the source model that made the maps"):
        predict(photos, modulated, tmp_path / "out")

    shutil.rmtree(run)
    with pytest.raises(SalpipeError, match=r"is unknown"):
        shards_of(photos, shards, **source)
    with pytest.raises(SalpipeError, match=r"made with the run .*run, which is not there; give it with --weights"):
        predict(photos, modulated, tmp_path / "out")
    moved = shutil.copytree(baseline, tmp_path / "moved")
    assert predict(photos, modulated, tmp_path / "again", weights=str(moved), device="cpu").images == 12


NETWORK = """
from torch import nn

def make():
    parts = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*parts), {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
"""


def test_maps_of_ones_own_network_are_made_again_and_its_changed_code_is_noted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network_of_predict.py").write_text(NETWORK)
    shards = shards_of(photos, tmp_path / "shards", model="network_of_predict:make", **OWN)
    run = run_on(shards, tmp_path / "run")
    predict(photos, run, tmp_path / "out", device="cpu", progress=(progress := Notes()))
    assert not any("its source has changed" in note for note in progress.notes)
    assert ShardFolder(tmp_path / "out/shards").provenance["source"] == ShardFolder(shards).provenance["source"]
    changed = altered(run, tmp_path / "n.safetensors", source={"code_sha256": "0" * 64})
    predict(photos, changed, tmp_path / "changed", device="cpu", progress=(progress := Notes()))
    assert progress.find("network_of_predict:make: its source has changed since the maps were made")
