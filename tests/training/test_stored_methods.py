"""Methods with parameters in training: their names, signed maps, and maps that explain no class."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.plan import make_plan
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.evaluation.export import export
from saliency_pipeline.evaluation.predictions import predict_probabilities
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import MapShape, ShardHeader
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import Batch
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.maps import normalize, upsample
from saliency_pipeline.training.leaks import LeakCheck
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import datasets, network_spec
from tests.training.examples import CLASSES, SIZE, labeled_rows, store

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    backbone="test_resnet",
    init="scratch",
    fusion="input",
    epochs=1,
    batch_size=8,
    lr=0.01,
    precision="fp32",
    device="cpu",
)
SMOOTH = "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"
SQUARE = "smoothgrad:noise=0.15,samples=25,seed=0,stat=square"
RECORDED = {"eigencam": {"class_agnostic": True}, "hirescam:layer=layer4": {"signed": True}, SMOOTH: {}, SQUARE: {}}
SIGNED = "hirescam:layer=layer4"


def stored(path: Path, **recorded_target: object) -> Path:
    """Figures with maps of `RECORDED`: one per image of eigencam, two of the others."""
    rows = labeled_rows(48)
    maps, targets = {}, {}
    for method, recorded in RECORDED.items():
        count = 1 if "class_agnostic" in recorded else 2
        maps[method] = np.repeat(rows.maps["gradcam"], count, 1)
        if "signed" in recorded:
            maps[method] = maps[method] - 1
        targets[method] = np.full((48, count), -1 if count == 1 else 3, np.int32)
    shapes = {method: MapShape(own.shape[1], 7, 7) for method, own in maps.items()}
    source = {"model": "tiny", "classes": ["a", "b", "c", "d", "e"]}
    provenance = {"source": source, "methods": RECORDED, **recorded_target}
    head = ShardHeader("plan-methods", provenance, CLASSES[:3], SIZE, "raw", shapes)
    return store(path, head, replace(rows, maps=maps, targets=targets))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("methods") / "shards")


def test_a_run_records_the_full_name_and_is_resumed_under_any_spelling(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"maps of several methods 'smoothgrad'; choose one of .*mean and .*square"):
        train(shards, tmp_path / "run", replace(QUICK, method="smoothgrad"))
    train(shards, tmp_path / "run", replace(QUICK, method="smoothgrad:stat=square"))
    config = TrainConfig.read(tmp_path / "run")
    assert config is not None
    assert config.method == SQUARE
    again = train(shards, tmp_path / "run", replace(QUICK, method="smoothgrad:stat=square,samples=25", epochs=2))
    assert again.epochs == 2
    with pytest.raises(PlanMismatchError, match=f"--method {SQUARE} -> {SMOOTH}"):
        train(shards, tmp_path / "run", replace(QUICK, method="smoothgrad:stat=mean", epochs=2))


def test_arms_have_the_full_names_of_their_methods(shards: Path) -> None:
    arms = [Arm("plain", {"arch": "baseline"}, "reference"), Arm("half", {"method": "hirescam"})]
    config = ComparisonConfig(folds=2, repeats=1)
    plan = make_plan(ShardFolder(shards), arms, QUICK, config, threads=1)
    assert plan.arms[1].options["method"] == SIGNED
    with pytest.raises(SalpipeError, match="no maps of 'lime'"):
        make_plan(ShardFolder(shards), [arms[0], Arm("half", {"method": "lime"})], QUICK, config, threads=1)


def test_signed_maps_are_read_by_their_magnitude_in_training_and_after(shards: Path, tmp_path: Path) -> None:
    config, pairs = replace(QUICK, method=SIGNED), ShardFolder(shards)
    raw = pairs.shards[0].maps(SIGNED)[:, 0]
    assert raw.min() < 0 < raw.max()
    expected = normalize(upsample(torch.from_numpy(raw), SIZE).abs(), "minmax")
    train_set, validation, _ = datasets(replace(config, augment=()), network_spec(config, pairs), pairs)
    for prefetcher in (train_set, validation):
        batch = prefetcher.prepare(np.arange(5), 0)
        assert torch.equal(batch.maps, expected[batch.positions])
    train(shards, tmp_path / "run", config)
    trained, rows = load_trained(tmp_path / "run"), np.arange(9)
    images = torch.from_numpy(pairs.images_at(rows)).permute(0, 3, 1, 2)
    inputs = Inputs(trained.preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        logits = trained.network(*inputs(Batch(images, expected[:9], torch.zeros(9), rows))[:2])
    np.testing.assert_allclose(predict_probabilities(trained, pairs, rows), logits.softmax(1), atol=1e-6)


@pytest.mark.parametrize(("method", "absolute"), [(SIGNED, True), (SMOOTH, False)])
def test_an_exported_model_says_whether_maps_are_absolute(
    shards: Path, tmp_path: Path, method: str, absolute: bool
) -> None:
    onnx = pytest.importorskip("onnx")
    train(shards, tmp_path / "run", replace(QUICK, method=method))
    entries = onnx.load(export(tmp_path / "run", tmp_path / "model.onnx").file).metadata_props
    metadata = {entry.key: entry.value for entry in entries}
    assert metadata["method"] == method
    assert json.loads(metadata["normalization"])["map_absolute"] is absolute


def test_a_target_that_a_method_does_not_have_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"holds 1 maps of 'eigencam' per image; use a target from 0 to 0, not 1"):
        train(shards, tmp_path / "run", replace(QUICK, method="eigencam", map_target=1))


# the second as salpipe stored it before it stored the settings
@pytest.mark.parametrize("recorded", [{"settings": {"target": "label"}}, {"target": "label"}])
def test_maps_that_explain_no_class_give_no_label_away(tmp_path: Path, recorded: dict[str, object]) -> None:
    check = LeakCheck(ShardFolder(stored(tmp_path / "shards", **recorded)))
    assert check.label_maps(replace(QUICK, method="eigencam")) is None
    # eigencam is the first of the methods
    assert check.label_maps(QUICK) is None
    for method in (SMOOTH, "hirescam", "lime", "smoothgrad"):
        assert check.label_maps(replace(QUICK, method=method)) is not None
