"""Distance of the start from plain transfer: 0 for neutral fusions, as computed by hand for the others."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import Setup, set_up
from saliency_pipeline.training.start import is_neutral, start_distance
from tests.training.examples import labeled

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=1, batch_size=16, lr=0.01, precision="fp32", device="cpu"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def parts(shards: Path, **options: object) -> Setup:
    return set_up(dataclasses.replace(QUICK, **options), ShardFolder(shards), torch.device("cpu"))


def distance(own: Setup) -> dict | None:
    return start_distance(own.network, own.spec, own.inputs, own.validation)


@pytest.mark.parametrize("fusion", ["multiply-skip", "add", "concat"])
def test_logits_are_as_far_from_the_baselines_as_that_of_the_same_seed_says(shards: Path, fusion: str) -> None:
    own, plain = parts(shards, fusion=fusion), parts(shards, arch="baseline")
    start = distance(own)
    assert start is not None
    assert not is_neutral(start)
    images, maps, _ = own.inputs(own.validation.prepare(np.linspace(0, 23, 16).astype(int), 0))
    with torch.no_grad():
        ours, theirs = own.network.eval()(images, maps), plain.network.eval()(images)
    assert start["logits"]["eval"] == pytest.approx(float((ours - theirs).norm() / theirs.norm()), rel=1e-4)


def test_a_fourth_channel_is_compared_with_none(shards: Path) -> None:
    own = parts(shards, fusion="input")
    start = distance(own)
    assert start is not None
    assert start["features"]["eval"] > 0.01
    with torch.no_grad():
        own.network.get_submodule("backbone.conv1.0").weight[:, 3] = 0
    assert distance(own) == {"features": {"eval": 0, "train": 0}, "logits": {"eval": 0, "train": 0}}


def test_a_neutral_start_is_one_in_both_modes_and_a_baseline_has_none(shards: Path) -> None:
    start = distance(parts(shards, fusion="neutral"))
    assert start == {"features": {"eval": 0, "train": 0}, "logits": {"eval": 0, "train": 0}}
    assert is_neutral(start)
    assert distance(parts(shards, arch="baseline")) is None


def test_looking_changes_nothing(shards: Path) -> None:
    own = parts(shards)
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    first, again = distance(own), distance(own)
    assert first == again
    assert own.network.training
    assert all(torch.equal(value, before[name]) for name, value in own.network.state_dict().items())


def test_a_run_keeps_it_and_warns_where_frozen_layers_read_other_features(
    shards: Path, tmp_path: Path, without_plots: None
) -> None:
    class Notes(Progress):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    for fusion in ("multiply-skip", "neutral"):
        notes = Notes()
        options = dataclasses.replace(QUICK, fusion=fusion, freeze="features")
        train(shards, tmp_path / fusion, options, progress=notes)
        warned = [line for line in notes.lines if line.startswith("--freeze features: --fusion multiply-skip moves")]
        assert len(warned) == (fusion == "multiply-skip")
        kept = json.loads((tmp_path / fusion / "provenance.json").read_text())["start"]
        assert (kept["features"]["eval"] > 0) == (fusion == "multiply-skip")
