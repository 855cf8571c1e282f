"""Runs of methods that mask frames: the same bytes whatever runs beside what, standard errors, estimated cost."""

import json
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation import estimate as estimates
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.estimate import estimate
from saliency_pipeline.generation.outline import dry_run
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from tests.generation.examples import flat, kept, run

RISE = "rise:cells=3,debiased=false,masks=24,p=0.5,score=probability,seed=0"
METHODS = (
    "scorecam:channels=6",
    "groupcam:groups=5",
    "occlusion:window=32",
    "rise:masks=24,cells=3",
    "hsic:grid=4,samples=20",
    "kernelshap:segments=9,samples=20",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("images"), 5)


@pytest.fixture(scope="module")
def masked(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked") / "shards"
    run(images, folder, methods=METHODS, target="top:2")
    return folder


def test_worker_processes_write_the_same_bytes(images: Path, masked: Path, tmp_path: Path) -> None:
    options = {"methods": METHODS, "target": "top:2"}
    run(images, tmp_path / "jobs", jobs=2, **options)
    assert kept(tmp_path / "jobs") == kept(masked)


def test_maps_do_not_depend_on_the_images_of_a_run(images: Path, masked: Path, tmp_path: Path) -> None:
    # of the others, and in batches and chunks of other sizes
    few = tmp_path / "few"
    few.mkdir()
    for number in (4, 1, 2):
        (few / f"{number}.jpg").write_bytes((images / f"{number}.jpg").read_bytes())
    run(few, tmp_path / "shards", methods=METHODS, target="top:2", shard_size=2)
    whole, part = ({pair.key: pair for pair in ShardFolder(path)} for path in (masked, tmp_path / "shards"))
    assert len(part) == 3
    for key, pair in part.items():
        assert set(pair.maps) == set(whole[key].maps)
        for name, maps in pair.maps.items():
            assert np.array_equal(maps, whole[key].maps[name]), name


def test_the_standard_error_of_rise_is_stored_and_shown(masked: Path) -> None:
    folder = ShardFolder(masked)
    errors = folder.shard(0).standard_errors(RISE)
    assert errors is not None
    assert errors.shape == (4, 2)
    assert ((errors > 0.01) & (errors < 2)).all()
    assert folder.shard(0).residuals(RISE) is None
    assert folder.header.maps[RISE].standard_error
    assert sum(shape.standard_error for shape in folder.header.maps.values()) == 1
    assert folder.header.version == "1.3"
    assert folder.provenance["methods"][RISE]["sampled"] is True
    assert verify(masked, deep=True).problems == ()
    summary = inspect(masked)
    assert summary.maps[RISE].standard_error is not None
    assert "standard error: median" in summary.as_text()
    assert summary.as_text().count("standard error") == 1


def test_the_cost_of_a_run_is_known_before_it(images: Path, tmp_path: Path) -> None:
    config = GenerateConfig(model="test_resnet", weights="none", size=64, methods=("rise", "occlusion"), device="cpu")
    outlined = dry_run(images, tmp_path / "out", config)
    # (64 - 32) / 16 + 1 = 3 positions along each side, and the frame as it is
    assert outlined.passes == 1 + 1000 + 10
    assert outlined.seconds is not None
    assert 0 < outlined.seconds < 600
    assert "cost: 1,011 forward passes per image, about " in outlined.as_text()
    assert not (tmp_path / "out").exists()


def test_channels_targets_and_size_count() -> None:
    base = {"model": "test_resnet", "weights": "none", "size": 64, "device": "cpu"}
    everything = GenerateConfig(methods=("scorecam:channels=0", "groupcam"), target="top:3", **base)
    # the last layer has 96 channels; each class has groups of its own
    assert estimate(everything, Progress()).passes == 1 + 96 + 3 * 33


def test_a_cheap_run_is_not_timed_and_a_model_that_cannot_be_loaded_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    class Notes(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    def refuse(*_: object) -> None:
        raise SalpipeError("no network; check the connection")

    monkeypatch.setattr(estimates, "load_source", refuse)
    assert estimate(GenerateConfig(), Notes()) == estimates.Estimate(1.0)
    assert notes == []
    assert estimate(GenerateConfig(methods=("hsic",)), Notes()) == estimates.Estimate(501.0)
    timing = "timing forward passes of efficientnet_lite0"
    assert notes == [timing, "time not estimated: no network; check the connection"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(100, "100 seconds"), (150, "2.5 minutes"), (5000, "83 minutes"), (86_000, "24 hours")],
)
def test_durations_are_rounded(images: Path, seconds: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = estimates.Estimate(5.0, 25 / seconds)
    monkeypatch.setattr("saliency_pipeline.generation.outline.estimate", lambda *_: cost)
    outlined = dry_run(images, images.parent / "none", GenerateConfig())
    assert f"cost: 5 forward passes per image, about {text} for all" in outlined.as_text()
    assert json.loads(json.dumps(outlined.passes)) == 5
