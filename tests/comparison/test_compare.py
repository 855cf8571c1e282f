"""Comparisons from shards to results: trained, kept and refused runs, and runs lost by a kill."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.comparison.arms import Arm, choose_arms
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.comparison.finished_runs import compare_runs
from saliency_pipeline.comparison.output import rebuild
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.serialization import to_json
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.comparison.examples import settings
from tests.training.examples import disable_plots, labeled

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(backbone="test_resnet", epochs=2, batch_size=16, lr=0.01, precision="fp32", device="cpu")
SCRATCH = {"init": "scratch"}
BASELINE = Arm("baseline", {"arch": "baseline", **SCRATCH}, "reference")
MODULATED = Arm("half", {"arch": "modulated", **SCRATCH})
MISMATCHED = Arm("half-mismatched", {"arch": "modulated", "maps": "mismatched", **SCRATCH}, "control", of="half")
ARMS = (BASELINE, MODULATED, MISMATCHED)

ONCE = settings(folds=2, repeats=1, jobs=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.fixture(scope="module")
def compared(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparisons") / "compared"
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        compare(shards, folder, ARMS, QUICK, **ONCE)
    return folder


def runs(folder: Path) -> dict[str, int]:
    """When each run's weights were written, by its folder."""
    weights = sorted(folder.glob("runs/*/*/*/last.safetensors"))
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in weights}


def predictions(path: Path) -> list[list[str]]:
    """Rows of a table of answers: key, label, predicted class and more."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_every_arm_is_trained_on_every_fold(compared: Path) -> None:
    assert list(runs(compared)) == [
        f"runs/all-images/{arm}/seed-0-fold-{fold}"
        for arm in ("baseline", "half", "half-mismatched")
        for fold in (1, 2)
    ]
    content = results(compared)["settings"][0]
    assert content["images"] == {"train": [36, 36], "validation": [36, 36], "pool": [36, 36]}
    assert content["ratio"] == 1
    for arm in ("baseline", "half", "half-mismatched"):
        config = TrainConfig.read(compared / "runs" / "all-images" / arm / "seed-0-fold-2")
        assert (config.folds, config.fold, config.seed, config.maps == "mismatched") == (
            2,
            2,
            0,
            arm == "half-mismatched",
        )


def test_pairs_share_split_and_first_weights(compared: Path) -> None:
    tables = {}
    for arm in ("baseline", "half"):
        run = compared / "runs" / "all-images" / arm / "seed-0-fold-1"
        tables[arm] = [row[:2] for row in predictions(run / "validation.csv")]
    assert tables["baseline"] == tables["half"]
    # scores of the last epoch agree with the answers that are kept
    row = json.loads((compared / "runs/all-images/half/seed-0-fold-1/metrics.jsonl").read_text().splitlines()[-1])
    rows = predictions(compared / "runs/all-images/half/seed-0-fold-1/validation.csv")
    assert np.mean([label == predicted for _, label, predicted, _ in rows]) == pytest.approx(row["validation_top1"])


def test_the_held_out_images_are_answered_by_every_run_and_by_no_other_means(compared: Path) -> None:
    for run in runs(compared):
        assert json.loads((compared / run / "evaluation-test" / "evaluation.json").read_text())["images"] == 24
        validated, held_out = (
            {row[0] for row in predictions(compared / run / name)}
            for name in ("validation.csv", "evaluation-test/predictions.csv")
        )
        assert len(held_out) == 24
        assert not validated & held_out
    contrast = results(compared)["settings"][0]["contrasts"][0]
    assert contrast["test"]["images"] == 24
    assert contrast["test"]["low"] <= contrast["test"]["mean"] <= contrast["test"]["high"]


def test_the_same_again_trains_nothing_and_says_the_same(shards: Path, compared: Path) -> None:
    before, content = runs(compared), (compared / "results.json").read_bytes()
    again = compare(shards, compared, ARMS, QUICK, **ONCE)
    assert runs(compared) == before
    assert (compared / "results.json").read_bytes() == content
    assert again.runs == 6


def test_too_few_pairs_are_no_verdict(compared: Path) -> None:
    content = results(compared)
    assert content["verdict"]["word"] == "underpowered"
    assert content["verdict"]["sentence"].count(": underpowered, because 2 pairs") == 1
    assert any("too few for a verdict" in warning for warning in content["warnings"])


def test_the_report_is_written_again_from_the_results(shards: Path, compared: Path) -> None:
    page = (compared / "report.html").read_bytes()
    (compared / "report.html").unlink()
    assert rebuild(compared).page.read_bytes() == page


@pytest.mark.slow
def test_an_arm_against_itself_differs_by_nothing(shards: Path, tmp_path: Path) -> None:
    arms = (BASELINE, Arm("again", BASELINE.options))
    comparison = compare(
        shards, tmp_path, arms, dataclasses.replace(QUICK, epochs=1), **settings(folds=3, repeats=2, jobs=1)
    )
    content = to_json(comparison.results.settings[0].contrasts[0])
    assert content["pairs"] == 6
    for measure in ("final", "area"):
        assert [difference["value"] for difference in content[measure]["differences"]] == [0.0] * 6
        assert content[measure]["verdict"] == "no difference"
    assert comparison.results.verdict.word == "no difference"


@pytest.mark.usefixtures("without_pages")
def test_other_options_are_refused_and_named_and_more_arms_are_not(
    shards: Path, compared: Path, tmp_path: Path
) -> None:
    compared = shutil.copytree(compared, tmp_path / "compared")
    with pytest.raises(PlanMismatchError, match=r"--lr 0.01 -> 0.1"):
        compare(shards, compared, ARMS, dataclasses.replace(QUICK, lr=0.1), **ONCE)
    with pytest.raises(PlanMismatchError, match=r"folds 2 -> 3"):
        compare(shards, compared, ARMS, QUICK, **settings(folds=3, repeats=1, jobs=1))
    other = dataclasses.replace(MODULATED, options={**MODULATED.options, "fusion": "add"})
    with pytest.raises(PlanMismatchError, match="arm half"):
        compare(shards, compared, (BASELINE, other), QUICK, **ONCE)
    before = runs(compared)
    more = (*ARMS, Arm("half-uniform", {"arch": "modulated", "maps": "uniform", **SCRATCH}, "control"))
    comparison = compare(shards, compared, more, QUICK, **ONCE)
    assert comparison.runs == 8
    assert before.items() <= runs(compared).items()


def test_a_run_that_cannot_be_trained_is_a_warning_and_stops_no_other(shards: Path, tmp_path: Path) -> None:
    broken = Arm("broken", {**BASELINE.options, "lr": 1e4})
    comparison = compare(shards, tmp_path, (BASELINE, broken), QUICK, **ONCE)
    assert (comparison.runs, comparison.failed) == (2, 2)
    assert sum("not finite" in warning for warning in comparison.results.warnings) == 2
    assert (tmp_path / "report.html").exists()
    with pytest.raises(SalpipeError, match=r"no run could be trained; the first: .* not finite"):
        compare(
            shards,
            tmp_path / "all",
            (broken, Arm("worse", broken.options, "reference")),
            QUICK,
            **settings(folds=2, jobs=1),
        )


@pytest.mark.slow
def test_budgets_and_pretraining_sizes_are_swept(shards: Path, tmp_path: Path) -> None:
    arms = choose_arms(["baseline", "full"], controls=())
    arms = (dataclasses.replace(arms[0], options=BASELINE.options), arms[1])
    source = labeled(tmp_path / "source", 48, seed=1)
    quick = dataclasses.replace(QUICK, epochs=1, init="scratch")
    comparison = compare(
        shards,
        tmp_path / "out",
        arms,
        quick,
        **settings(
            folds=2, repeats=1, per_class=("4", "all"), pretrain=str(source), pretrain_size=("12", "all"), jobs=1
        ),
    )
    assert [setting.name for setting in comparison.results.settings] == ["4 per class", "all images"]
    assert comparison.results.settings[0].images.train == (12, 12)
    assert comparison.results.settings[0].ratio == 1  # drawn from 36, validated on 36
    assert [arm.name for arm in comparison.results.arms] == [
        "baseline",
        "full-12",
        "full-all",
        "baseline-full-12",
        "baseline-full-all",
    ]
    assert TrainConfig.read(tmp_path / "out" / "pretrained" / "12" / "full-12" / "seed-0").limit == 12
    begun = TrainConfig.read(tmp_path / "out/runs/all-images/full-12/seed-0-fold-1").start
    assert Path(begun) == (tmp_path / "out" / "pretrained" / "12" / "full-12" / "seed-0").resolve()
    assert comparison.runs == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "--folds 1: use 2 or more, or 0"),
        ({"repeats": 0}, "--repeats 0: use a number from 1"),
        ({"per_class": ("5", "many")}, "--per-class many: use numbers of images, or 'all'"),
        ({"per_class": ("5", "5")}, "--per-class 5,5: has a number twice"),
        ({"jobs": 0}, "--jobs 0: use a number from 1"),
        ({"engine": "loky", "address": "tcp://nowhere:1"}, "loky works on this machine alone"),
        ({"arms": choose_arms(["baseline", "full"])}, "arm full starts from a trained two-branch network"),
        ({"pretrain": "x"}, "--pretrain: no arm starts from it"),
    ],
)
def test_what_cannot_be_is_one_line(shards: Path, tmp_path: Path, options: dict, message: str) -> None:
    arms = options.pop("arms", ARMS)
    with pytest.raises(SalpipeError, match=message) as error:
        compare(shards, tmp_path / "out", arms, QUICK, **settings(**{"jobs": 1, "folds": 2, **options}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bf16", [False, True])
def test_without_bf16_no_network_is_built_to_choose_the_precision(
    bf16: bool, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    compare_module = "saliency_pipeline.comparison.compare"
    monkeypatch.setattr(f"{compare_module}.computes_bf16", lambda _device: bf16)
    monkeypatch.setattr(f"{compare_module}.choose_shared_precision", lambda *args: calls.append(args) or "fp32")
    plan_only(shards, tmp_path / "out", ARMS, dataclasses.replace(QUICK, precision="auto"), **ONCE)
    assert len(calls) == bf16


def test_a_dry_run_counts_measures_and_writes_nothing(shards: Path, tmp_path: Path) -> None:
    _, tasks, estimate = plan_only(shards, tmp_path / "out", ARMS, QUICK, **settings(folds=2, repeats=3, jobs=1))
    assert (len(tasks), estimate.runs, estimate.steps) == (18, 18, 18 * 2 * 3)
    assert set(estimate.seconds_per_step) == {"baseline", "half", "half-mismatched"}
    assert estimate.seconds > estimate.steps * min(estimate.seconds_per_step.values())
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    options = {"baseline": BASELINE.options, "half": MODULATED.options, "add": {**MODULATED.options, "fusion": "add"}}
    for name, own in options.items():
        train(shards, folder / name, dataclasses.replace(QUICK, **own))
    train(shards, folder / "other-seed", dataclasses.replace(QUICK, seed=1, **BASELINE.options))
    return {path.name: path for path in folder.iterdir()}


def test_two_finished_runs_are_compared_image_by_image(trained: dict[str, Path], tmp_path: Path) -> None:
    comparison = compare_runs([trained["half"], trained["baseline"]], tmp_path)
    assert [(arm.name, arm.kind) for arm in comparison.results.arms] == [
        ("scratch", "candidate"),
        ("baseline", "reference"),
    ]
    contrast = to_json(comparison.results.settings[0].contrasts[0])
    assert contrast["pairs"] == 1
    assert contrast["images"]["images"] == 24
    right = {
        name: [label == predicted for _, label, predicted, _ in predictions(trained[name] / "validation.csv")]
        for name in ("half", "baseline")
    }
    assert contrast["images"]["only_arm"] == sum(
        a and not b for a, b in zip(right["half"], right["baseline"], strict=True)
    )
    assert comparison.results.verdict.word == "underpowered"
    assert "McNemar" in comparison.results.verdict.sentence
    assert comparison.page.exists()


def test_arms_are_read_off_what_runs_differ_in(trained: dict[str, Path], tmp_path: Path) -> None:
    comparison = compare_runs([trained["baseline"], trained["half"], trained["add"]], tmp_path)
    assert [arm.name for arm in comparison.results.arms] == [
        "baseline",
        "scratch,fusion=multiply-skip",
        "scratch,fusion=add",
    ]
    with pytest.raises(SalpipeError, match="differ in seed or fold alone"):
        compare_runs([trained["baseline"], trained["other-seed"]], tmp_path / "a")
    with pytest.raises(SalpipeError, match="arm baseline has two runs of seed 0"):
        compare_runs([trained["baseline"], trained["baseline"], trained["half"]], tmp_path / "b")
    with pytest.raises(SalpipeError, match="--reference nothing: no such arm"):
        compare_runs([trained["baseline"], trained["half"]], tmp_path / "c", reference="nothing")
    with pytest.raises(SalpipeError, match="two runs or more"):
        compare_runs([trained["baseline"]], tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SalpipeError, match="not a finished run"):
        compare_runs([tmp_path / "empty", trained["half"]], tmp_path / "e")


ARMS_FILE = """
[arm.baseline]
arch = "baseline"
init = "scratch"
[arm.half]
like = "half"
init = "scratch"
[arm.mismatched]
like = "mismatched"
init = "scratch"
"""


def command(shards: Path, folder: Path, *options: str) -> list[str]:
    (folder.parent / "arms.toml").write_text(ARMS_FILE)
    quick = ["--backbone", "test_resnet", "--epochs", "2", "--lr", "0.01", "--precision", "fp32", "--device", "cpu"]
    shape = ["--folds", "2", "--repeats", "1", "--jobs", "2", "--arms", str(folder.parent / "arms.toml")]
    return [
        sys.executable,
        "-m",
        "saliency_pipeline.cli",
        "compare",
        str(shards),
        "-o",
        str(folder),
        *quick,
        *shape,
        *options,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of two processes without a kill."""
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    subprocess.run(command(shards, folder), env=environment(), check=True, capture_output=True)
    return (folder / "results.json").read_bytes()


@pytest.mark.slow
def test_kills_at_any_moment_change_no_result(shards: Path, undisturbed: bytes, tmp_path: Path) -> None:
    killed, random = tmp_path / "killed", np.random.default_rng(0)
    for _ in range(2):
        process = subprocess.Popen(command(shards, killed), env=environment(), stderr=subprocess.DEVNULL)
        before = len(runs(killed))
        while len(runs(killed)) == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(float(random.uniform(0, 0.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(shards, killed), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (killed / "results.json").read_bytes() == undisturbed
    assert not list(killed.rglob("tmp.*"))


@pytest.mark.slow
def test_a_cluster_with_another_working_directory_that_loses_a_worker_gives_the_same_results(
    shards: Path, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    free_port = {"dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, scheduler_kwargs=free_port
    ) as cluster:
        monkeypatch.chdir(tmp_path)
        process = subprocess.Popen(
            command(shards, Path("there"), "--engine", "dask", "--address", cluster.scheduler_address),
            env=environment(),
            stderr=subprocess.PIPE,
        )
        while not runs(tmp_path / "there") and process.poll() is None:
            time.sleep(0.05)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (tmp_path / "there" / "results.json").read_bytes() == undisturbed
