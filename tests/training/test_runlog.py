"""Files of a run besides its weights: metrics that are not defined, and digests of the initial weights."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from saliency_pipeline.models.source.weights import tensor_digests
from saliency_pipeline.models.trained.two_branch import build_network
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.checkpoint import EpochMetrics
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from saliency_pipeline.training.runlog import write_metrics
from saliency_pipeline.training.setup import network_spec
from tests.training.examples import labeled

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=1, batch_size=16, lr=0.01, precision="fp32", device="cpu"
)
ROW = EpochMetrics(
    epoch=1,
    train_loss=1.5,
    train_top1=0.25,
    validation_loss=1.25,
    validation_top1=0.5,
    validation_top5=None,
    validation_macro_f1=0.5,
    lr=0.01,
    seconds=2.0,
    images_per_second=100.0,
    wait_share=0.0,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled", 48)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_metric_that_is_not_defined_is_null_in_one_table_and_empty_in_the_other(tmp_path: Path) -> None:
    write_metrics(tmp_path, [ROW, dataclasses.replace(ROW, epoch=2, validation_top5=0.75)])
    assert [row["validation_top5"] for row in rows_of(tmp_path)] == [None, 0.75]
    with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
        assert [row["validation_top5"] for row in csv.DictReader(file)] == ["", "0.75"]


def test_top5_is_no_metric_of_three_classes(shards: Path, tmp_path: Path) -> None:
    report = train(shards, tmp_path / "run", QUICK)
    assert report.best.validation_top5 is None
    assert rows_of(tmp_path / "run")[0]["validation_top5"] is None
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best"]["validation_top5"] is None


def test_initial_weights_are_recorded_and_added_to_a_record_without_them(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(shards, run, QUICK)
    provenance = json.loads((run / "provenance.json").read_text())
    own = provenance["initialization"]["tensors"]
    names = tensor_digests(build_network(network_spec(QUICK, ShardFolder(shards))))
    assert own.keys() == names.keys()
    assert set(provenance["initialization"]["xavier"]) <= own.keys()
    del provenance["initialization"]["tensors"]
    (run / "provenance.json").write_text(json.dumps(provenance))
    before = (run / "last.safetensors").read_bytes()
    train(shards, run, QUICK)
    completed = json.loads((run / "provenance.json").read_text())
    assert completed["initialization"].pop("tensors") == own
    assert completed == provenance
    assert (run / "last.safetensors").read_bytes() == before
