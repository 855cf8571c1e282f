"""Tuning: rates chosen per run on an inner split of its training images, and what that costs."""

import json
from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.serialization import to_json
from saliency_pipeline.training.config import TrainConfig
from tests.comparison.examples import settings
from tests.comparison.pretended import Pretended
from tests.training.examples import disable_plots, labeled

QUICK = TrainConfig(backbone="test_resnet", init="scratch", epochs=1, lr=0.01, precision="fp32", device="cpu")
ARMS = (Arm("baseline", {"arch": "baseline"}, "reference"), Arm("half", {"arch": "modulated"}))
LRS = (0.02, 0.01, 0.05)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def score(config: TrainConfig) -> float:
    """The baseline prefers 0.05 but in one fold; half takes 0.01 and 0.02 alike and diverges at 0.05."""
    if config.arch == "baseline":
        best = 0.02 if (config.seed, config.fold) == (1, 2) else 0.05
        return 0.6 if config.lr == best else 0.5
    return float("nan") if config.lr == 0.05 else 0.7


def test_every_run_takes_the_best_rate_of_its_inner_split(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended = Pretended(monkeypatch, score)
    comparison = compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=2, lrs=LRS, jobs=1))
    inner = [config for run, config in pretended.trained if "/tuning/" in run]
    main = {str(Path(run).relative_to(tmp_path)): config for run, config in pretended.trained if "/runs/" in run}
    assert (len(inner), len(main), comparison.failed) == (24, 8, 0)
    assert all(config.inner_split for config in inner)
    assert not any(config.inner_split for config in main.values())
    assert main["runs/all-images/baseline/seed-1-fold-2"].lr == 0.02
    assert main["runs/all-images/baseline/seed-1-fold-1"].lr == 0.05
    # of equal rates the smaller
    assert main["runs/all-images/half/seed-0-fold-1"].lr == 0.01
    assert to_json(comparison.results.tuning) == {
        "lrs": [0.02, 0.01, 0.05],
        "runs": 24,
        "diverged": 4,
        "chosen": {"all images": {"baseline": {"0.05": 3, "0.02": 1}, "half": {"0.01": 4}}},
    }
    assert any("--lr 0.05 in 4 of the inner runs" in warning for warning in comparison.results.warnings)
    # the time of inner runs is in costs.json, and is no part of the results
    costs = json.loads((tmp_path / "costs.json").read_text())["settings"]["all images"]
    assert costs["baseline"]["tuning"] == {"runs": 12, "seconds": 6.0}
    assert costs["half"]["tuning"]["runs"] == 8
    # the same again trains nothing, not even what diverged
    before = (tmp_path / "results.json").read_bytes()
    compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=2, lrs=LRS, jobs=1))
    assert len(pretended.trained) == 32
    assert (tmp_path / "results.json").read_bytes() == before


def test_rates_at_which_all_diverges_leave_a_run_out(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretended(monkeypatch, lambda config: float("nan") if config.arch == "modulated" else 0.5)
    comparison = compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=1, lrs=(0.1, 0.2), jobs=1))
    assert (comparison.runs, comparison.failed) == (2, 2)
    assert any("became infinite at every --lr; give lower ones" in warning for warning in comparison.results.warnings)


def test_an_inner_run_that_fails_otherwise_chooses_no_rate(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(config: TrainConfig) -> float:
        if config.inner_split and config.lr == 0.2:
            raise SalpipeError("no space left")
        return 0.5

    pretended = Pretended(monkeypatch, full_disk)
    with pytest.raises(SalpipeError, match=r"no run could be trained; .* its rate was not chosen: no space left"):
        compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=1, lrs=(0.1, 0.2), jobs=1))
    pretended.score = lambda config: 0.5
    assert compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=1, lrs=(0.1, 0.2), jobs=1)).runs == 4


def test_a_dry_run_counts_inner_runs_and_their_time(shards: Path, tmp_path: Path) -> None:
    _, tasks, estimate = plan_only(
        shards, tmp_path / "out", ARMS, QUICK, **settings(folds=2, repeats=1, lrs=LRS, jobs=1)
    )
    assert {purpose: part.runs for purpose, part in estimate.parts.items()} == {"tuning": 12, "training": 4}
    assert estimate.seconds == pytest.approx(sum(part.seconds for part in estimate.parts.values()))
    assert tasks[0].folder == "tuning/all-images/baseline/seed-0-fold-1/lr-0.02"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tuned_runs_are_trained_in_processes_too(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_plots(monkeypatch)
    comparison = compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=1, lrs=(0.001, 0.01), jobs=2))
    assert (comparison.runs, comparison.failed) == (4, 0)
    inner = TrainConfig.read(tmp_path / "tuning/all-images/half/seed-0-fold-1/lr-0.001")
    assert inner is not None
    assert inner.inner_split
