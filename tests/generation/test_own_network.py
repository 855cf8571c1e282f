"""Runs with one's own network: its code belongs to the plan, and its name is enough for worker processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.generation import job as job_module
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.outline import dry_run
from saliency_pipeline.models.source import user_code
from saliency_pipeline.models.source.own import own_sha256
from tests.generation.examples import OPTIONS, kept, run

NETWORK = """
from torch import nn

def make():
    parts = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    network = nn.Sequential(*parts)
    network.classes = ["cat", "dog", "owl"]
    return network, {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}
"""
OWN: dict[str, Any] = {"model": "own_network:make", "weights": "default", "size": None, "target": "owl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The folder of `own_network.py` and a finished run with it, in `shards`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_network.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(images, folder / "shards", **OWN).complete
    return folder


@pytest.fixture
def code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The source of the network, which is restored; hashes are taken as in a new process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(user_code, "_hashes", {})
    yield folder / "own_network.py"
    (folder / "own_network.py").write_text(NETWORK)


def test_the_hash_of_the_code_is_in_plan_and_shards(folder: Path, code: Path) -> None:
    plan = json.loads((folder / "shards" / "plan.json").read_text())
    described = plan["provenance"]["source"]
    assert described["code_sha256"] == own_sha256("own_network:make")
    assert (described["model"], described["classes"]) == ("own_network:make", ["cat", "dog", "owl"])


def test_a_run_is_resumed_while_the_code_is_the_same(images: Path, folder: Path, code: Path) -> None:
    before = kept(folder / "shards")
    (folder / "shards" / "shard-00001.h5").unlink()
    assert run(images, folder / "shards", **OWN).written == 1
    assert kept(folder / "shards") == before


def test_a_network_without_a_layer_to_explain_is_refused_before_images_are_listed(
    images: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat_network.py").write_text(
        NETWORK.replace("nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), ", "").replace(
            "nn.Linear(4,", "nn.Linear(3 * 32 * 32,"
        )
    )
    monkeypatch.chdir(tmp_path)
    own = {**OWN, "model": "flat_network:make", "target": "predicted"}
    with monkeypatch.context() as patch:
        patch.setattr("saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images are listed"))
        with pytest.raises(SalpipeError, match="has no layer whose output lies on a grid"):
            run(images, tmp_path / "shards", **own, methods=("gradcam", "expected-gradients"))
    assert run(images, tmp_path / "shards", **own, methods=("gradient", "fullgrad")).layers == ()


def test_a_run_with_other_code_is_refused_before_images_are_listed(
    images: Path, folder: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = own_sha256("own_network:make") or ""
    code.write_text(NETWORK.replace("stride=2", "stride=1"))
    user_code._hashes.clear()
    new = own_sha256("own_network:make") or ""
    with monkeypatch.context() as patch:
        patch.setattr("saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images are listed"))
        with pytest.raises(PlanMismatchError, match=rf"another plan \(code_sha256 {old[:8]} -> {new[:8]}\); choose"):
            run(images, folder / "shards", **OWN)
    config = GenerateConfig(**{**OPTIONS, **OWN})
    assert f"code_sha256 {old[:8]} -> {new[:8]}" in (dry_run(images, folder / "shards", config).refused or "")


def test_a_worker_refuses_other_code(
    images: Path, folder: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    monkeypatch.setattr("saliency_pipeline.generation.run.write_shards", lambda job, *_: jobs.append(job) or [])
    run(images, tmp_path / "shards", **OWN)
    code.write_text(NETWORK + "# another")
    user_code._hashes.clear()
    with pytest.raises(SalpipeError, match="--model own_network:make: its source has changed since the run was start"):
        job_module._kept_explainer(jobs[0])


@pytest.mark.slow
def test_worker_processes_load_the_network_by_its_name(images: Path, folder: Path, code: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "shards", **OWN, jobs=2).complete
    assert kept(tmp_path / "shards") == kept(folder / "shards")
