"""Runs that were not validated after every epoch: which measures a comparison still has."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.comparison.arms import Arm, choose_arms
from saliency_pipeline.comparison.compare import plan_only
from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.estimate import BEGIN, SELF_MAPS, estimate
from saliency_pipeline.comparison.overall import estimate_of
from saliency_pipeline.comparison.plan import make_plan
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.comparison.runs import Run, read_run
from saliency_pipeline.errors import OptionError
from saliency_pipeline.serialization import from_json
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.checkpoint import VALIDATED
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.runlog import METRICS
from saliency_pipeline.training.validation import validated_epochs
from tests.comparison.examples import analyzed, arms, primary, rules, runs, settings
from tests.comparison.test_strange_runs import ROW, finished  # noqa: F401 - a fixture
from tests.gallery.test_page import Page
from tests.training.examples import labeled

QUICK = TrainConfig(backbone="test_resnet", init="scratch", epochs=12, lr=0.01, precision="fp32", device="cpu")
ARMS = [Arm("baseline", {"arch": "baseline"}, "reference"), Arm("half", {"arch": "modulated"})]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def validated(own: Run, text: str) -> Run:
    """The run as it would be had it been validated after some epochs only."""
    length = len(own.curves["train_loss"])
    seen = np.isin(np.arange(1, length + 1), validated_epochs(text, length))
    curves = {name: np.where(seen | (name not in VALIDATED), own.curves[name], np.nan) for name in own.curves}
    return dataclasses.replace(own, curves=curves)


def compared(text: str, **options: object) -> dict:
    compared = arms()
    made = [validated(run, text) for run in runs(compared, effects={"half": 0.08}, **options)]
    return analyzed(made, compared, rules=rules(folds=5, repeats=2))


@pytest.mark.parametrize(
    ("text", "measures"), [("all", {"final", "area", "speed"}), ("curve=10", {"final", "area"}), ("every=2", {"final"})]
)
def test_measures_whose_epochs_were_validated_are_those_of_all_epochs(tmp_path, text, measures):
    whole, part = compared("all"), compared(text)
    (full,), (some,) = whole["settings"], part["settings"]
    assert json.loads(json.dumps(part, allow_nan=False)) == part
    for before, after in zip(full["contrasts"], some["contrasts"], strict=True):
        for measure in ("final", "area", "speed"):
            if measure in measures:
                unadjusted = ("differences", "statistics", "superiority", "margin")
                assert all(after[measure][name] == before[measure][name] for name in unadjusted)
            else:
                assert after[measure]["differences"] == []
                assert after[measure]["verdict"] is after[measure]["family"] is None
    assert (some["threshold"] is None) == ("speed" not in measures)
    assert [(run["area"] is None, run["time"] is None) for run in some["arms"]["half"]["runs"]] == [
        ("area" not in measures, "speed" not in measures)
    ] * 10
    notes = [warning for warning in part["warnings"] if "not validated" in warning]
    assert len(notes) == (text != "all")
    assert all("--validate all" in note and ("area" in note) == ("area" not in measures) for note in notes)
    assert part["verdict"]["word"] == whole["verdict"]["word"] == "better"
    page = Page(write_report(tmp_path, from_json(Results, json.loads(json.dumps(part))), Costs({}), lambda key: None))
    assert part["verdict"]["sentence"] in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_runs_that_stopped_early_are_carried_forward():
    (part,) = compared("curve=10", stops={"half": 6})["settings"]
    assert part["contrasts"][0]["area"]["differences"]
    assert part["arms"]["half"]["runs"][0]["area"] is not None


def test_a_primary_question_that_was_not_measured_has_no_verdict():
    made = [validated(run, "every=2") for run in runs(arms())]
    results = analyzed(made, arms(), rules=rules(primary=primary(measure="area"), folds=5, repeats=2))
    assert results["verdict"]["word"] == "withheld"
    assert "needs epochs that were not validated; use --validate all" in results["verdict"]["sentence"]
    contrast = from_json(Results, results).settings[0].contrasts[0]
    assert "not validated" in str(estimate_of(contrast, "area", own_split=False))


@pytest.mark.parametrize(
    ("question", "text", "refused"),
    [
        ("half:speed", "curve=10", True),
        ("half:area", "every=2", True),
        ("half:area", "curve=10", False),
        ("half:final", "every=5", False),
        ("half:speed", "curve=12", False),
    ],
)
def test_a_primary_question_that_cannot_be_measured_is_refused(shards, question, text, refused):
    own = settings(primary=question, folds=5)["config"]
    shared = dataclasses.replace(QUICK, validate=text)
    if refused:
        with pytest.raises(OptionError, match=f"--primary {question}: needs .* and --validate {text} leaves some out"):
            make_plan(ShardFolder(shards), ARMS, shared, own, threads=1)
    else:
        assert make_plan(ShardFolder(shards), ARMS, shared, own, threads=1).primary is not None


def test_a_run_is_read_with_gaps(finished):  # noqa: F811 - the fixture
    gap = ROW | dict.fromkeys(VALIDATED)
    (finished / METRICS).write_text("".join(json.dumps(row) + "\n" for row in (gap, ROW, gap, ROW)))
    run = read_run(finished, "arm", "all images")
    assert np.isnan(run.curves["validation_top1"]).tolist() == [True, False, True, False]
    assert np.isfinite(run.curves["train_top1"]).all()
    assert "validation_top5" in run.curves
    assert run.final == 1


def test_the_estimate_counts_maps_of_a_baseline_once_and_views(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_pipeline.comparison.estimate._measure", lambda config, pairs: (0.0, 1.0))

    def seconds(*names: str) -> float:
        arms = choose_arms(["baseline", *names], controls=())
        plan, tasks, _ = plan_only(
            shards, tmp_path / "out", arms, dataclasses.replace(QUICK, init="half"), **settings(folds=5, jobs=1)
        )
        firsts = list({task.arm: task for task in reversed(tasks) if task.arm != "baseline"}.values())
        return estimate(plan, firsts, 1).seconds - BEGIN * len(firsts)

    pool = len(ShardFolder(shards)) - 24
    train, validation = pool - pool // 5, pool // 5
    maps, once = SELF_MAPS * (train + validation), QUICK.epochs * validation
    assert seconds("self-zoom") == pytest.approx(maps + once, rel=0.05)
    assert seconds("self-zoom", "self-mask") == pytest.approx(maps + 2 * once, rel=0.05)
    assert seconds("self-keep") == pytest.approx(SELF_MAPS * train + once, rel=0.05)
    assert seconds("zoom:views=2") == 2 * seconds("zoom")


def test_the_estimate_counts_validations(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_pipeline.comparison.estimate._measure", lambda config, pairs: (1.0, 10.0))
    seconds = {}
    for text in ("all", "curve=2"):
        plan, tasks, _ = plan_only(
            shards, tmp_path / "out", ARMS, dataclasses.replace(QUICK, validate=text), **settings(folds=5, jobs=1)
        )
        seconds[text] = estimate(plan, tasks[:1], 1).seconds
    images = (len(ShardFolder(shards)) - 24) // 5
    assert seconds["all"] - seconds["curve=2"] == pytest.approx(9 * images * 10.0, rel=0.1)
