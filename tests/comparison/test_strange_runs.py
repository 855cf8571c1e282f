"""Runs and comparisons of unknown origin: the contents of their folders are checked before use."""

import json
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.comparison.jobs import run_task
from saliency_pipeline.comparison.output import rebuild
from saliency_pipeline.comparison.plan import Task
from saliency_pipeline.comparison.plan_file import PLAN, chosen_before
from saliency_pipeline.comparison.runs import is_finished, read_run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.serialization import to_json
from saliency_pipeline.training.checkpoint import COLUMNS
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.runlog import METRICS, PROVENANCE, SUMMARY, VALIDATION
from tests.odd_files import make_odd

ROW: dict[str, Any] = dict.fromkeys(COLUMNS, 1)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run folder with all files that are read."""
    TrainConfig(epochs=1).write(tmp_path)
    (tmp_path / SUMMARY).write_text('{"epochs": 1}')
    record = {"images": {"train": 2, "validation": 1}, "shards": {"sha256": "p", "path": "s"}}
    (tmp_path / PROVENANCE).write_text(json.dumps(record | {"initialization": {"sha256": "x"}}))
    (tmp_path / METRICS).write_text(json.dumps(ROW) + "\n")
    (tmp_path / VALIDATION).write_text("key,label,predicted,score\na,cat,dog,0.5\n")
    return tmp_path


def test_a_sound_one_is_read(finished: Path) -> None:
    run = read_run(finished, "arm", "all images")
    assert run.final == 1
    assert run.validation is not None
    assert run.validation.keys == ("a",)
    assert is_finished(finished, run.config)


@pytest.mark.parametrize("name", [METRICS, VALIDATION, PROVENANCE, "config.toml"])
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "deep"])
def test_what_is_no_small_regular_file_is_damaged(finished: Path, name: str, kind: str) -> None:
    path = finished / name
    make_odd(path, kind)
    with pytest.raises(SalpipeError, match=r"damaged \([^\n]*\)"):
        read_run(finished, "arm", "all images")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1]\n", '{"epoch": 1}\n'),
        *(json.dumps(ROW | {"validation_top1": v}) for v in (None, [], {}, 10**400, "x")),
        json.dumps(ROW | {"train_loss": None}),
    ],
)
def test_metrics_that_cannot_be_are_damage(finished: Path, text: str) -> None:
    (finished / METRICS).write_text(text)
    with pytest.raises(SalpipeError, match="damaged"):
        read_run(finished, "arm", "all images")


def test_a_metric_that_is_not_defined_has_no_curve(finished: Path) -> None:
    assert "validation_top5" in read_run(finished, "arm", "all images").curves
    rows = [ROW, ROW | {"validation_top5": None, "validation_top1": 0.25}]
    (finished / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(finished, "arm", "all images")
    assert "validation_top5" not in run.curves
    assert (run.final, len(run.curves["validation_top1"])) == (0.25, 2)


START = {"features": {"eval": 0.5, "train": 0.25}, "logits": {"eval": 0.75, "train": 1}}
TENSORS = {"fc.weight": "float32 2x3 0123456789abcdef"}


def rewrite(finished: Path, **entries: Any) -> None:
    provenance = json.loads((finished / PROVENANCE).read_text())
    (finished / PROVENANCE).write_text(json.dumps(provenance | entries))


def test_start_and_first_weights_are_read_where_they_were_recorded(finished: Path) -> None:
    run = read_run(finished, "arm", "all images")
    assert run.start is None
    assert run.first.tensors == {}
    initial = {"sha256": "x", "origin": "o", "loaded": [], "xavier": ["fc.weight"], "tensors": TENSORS}
    rewrite(finished, start=START, initialization=initial)
    run = read_run(finished, "arm", "all images")
    assert to_json(run.start) == START
    assert (run.first.origin, run.first.random, run.first.tensors) == ("o", {"fc.weight"}, TENSORS)


@pytest.mark.parametrize(
    "entries",
    [
        {"start": [1]},
        {"start": {"features": START["features"]}},
        {"start": START | {"logits": {"eval": "x", "train": 1}}},
        {"initialization": {"sha256": "x", "tensors": [1]}},
        {"initialization": {"sha256": "x", "tensors": {"fc.weight": "?"}}},
        {"initialization": {"sha256": "x", "xavier": ["other"], "tensors": TENSORS}},
    ],
)
def test_a_start_that_cannot_be_is_damage(finished: Path, entries: dict[str, Any]) -> None:
    rewrite(finished, **entries)
    with pytest.raises(SalpipeError, match="damaged"):
        read_run(finished, "arm", "all images")


@pytest.mark.parametrize("text", ["key\n" + "x" * 200_000, "", "key,label\n", "key,label,predicted\na,b\n"])
def test_a_table_of_another_kind_is_damage(finished: Path, text: str) -> None:
    (finished / VALIDATION).write_text(text)
    with pytest.raises(SalpipeError, match="damaged"):
        read_run(finished, "arm", "all images")


def test_a_summary_that_says_nothing_is_no_end(finished: Path) -> None:
    (finished / SUMMARY).write_text("{}")
    assert not is_finished(finished, TrainConfig(epochs=1))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"shared": {"precision": "fp32"}, "threads": 1e999}'])
def test_a_plan_that_cannot_be_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(SalpipeError, match="damaged"):
        chosen_before(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", '{"record": []}', '{"about": {"method": 3}, "settings": []}', '{"settings": 1}']
)
def test_results_that_cannot_be_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    (tmp_path / "costs.json").write_text("{}")
    with pytest.raises(SalpipeError, match=r"damaged|use text"):
        rebuild(tmp_path)


@pytest.mark.parametrize("name", ["runs", "runs/all-images", "runs/all-images/half"])
def test_runs_are_not_trained_through_a_planted_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    task = Task("runs/all-images/half/seed-0", str(tmp_path), TrainConfig(), "half", "all images", False)
    outcome = run_task(task, str(tmp_path / "out"), 1)
    assert "a symbolic link inside the output folder is not followed" in outcome.error
    assert not list((tmp_path / "outside").iterdir())
