"""Pretrained arms: each with its own pretraining per repeat, and a baseline that saw the same source images."""

import dataclasses
from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Question, choose_arms, contrasts
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.pretraining import source_contrasts, unequal_starts, with_pretrained
from saliency_pipeline.training.config import TrainConfig
from tests.comparison.examples import settings
from tests.comparison.pretended import Pretended
from tests.training.examples import disable_plots, labeled

QUICK = TrainConfig(backbone="test_resnet", init="scratch", epochs=1, lr=0.01, precision="fp32", device="cpu")
FULL = ("baseline", "full", "full-mismatched")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "source", 48, seed=1)


def test_full_is_compared_with_a_baseline_of_the_same_source_images() -> None:
    arms = with_pretrained(choose_arms(FULL), ComparisonConfig(pretrain="source"))
    assert [(arm.name, arm.kind, arm.of, arm.reference) for arm in arms] == [
        ("baseline", "reference", "", ""),
        ("full", "candidate", "", "baseline-full"),
        ("full-mismatched", "control", "full", ""),
        ("baseline-full", "reference", "", ""),
    ]
    assert contrasts(arms) == [
        Question("full", "baseline-full", "reference"),
        Question("full", "full-mismatched", "control"),
        Question("full-mismatched", "baseline-full", "descriptive"),
    ]
    assert source_contrasts(arms) == [
        Question("full", "baseline", "descriptive"),
        Question("baseline-full", "baseline", "descriptive"),
    ]
    starts = [arm.options.get("start") for arm in arms]
    assert starts == [None, "pretrained/all/full", "pretrained/all/full-mismatched", "pretrained/all/baseline-full"]
    assert arms[3].options == {"arch": "baseline", "init": "full", "start": "pretrained/all/baseline-full"}


def test_every_size_has_a_baseline_of_its_own() -> None:
    arms = with_pretrained(choose_arms(FULL), ComparisonConfig(pretrain="source", pretrain_size=("12", "all")))
    assert [(arm.name, arm.of, arm.reference) for arm in arms] == [
        ("baseline", "", ""),
        ("full-12", "", "baseline-full-12"),
        ("full-all", "", "baseline-full-all"),
        ("full-12-mismatched", "full-12", ""),
        ("full-all-mismatched", "full-all", ""),
        ("baseline-full-12", "", ""),
        ("baseline-full-all", "", ""),
    ]
    assert [(question.arm, question.against) for question in source_contrasts(arms)] == [
        ("full-12", "baseline"),
        ("full-all", "baseline"),
        ("full-all", "full-12"),
        ("baseline-full-12", "baseline"),
        ("baseline-full-all", "baseline"),
        ("baseline-full-all", "baseline-full-12"),
    ]
    named = with_pretrained(
        choose_arms(("baseline", "baseline-full", "full"), controls=()), ComparisonConfig(pretrain="source")
    )
    assert [(arm.name, arm.reference) for arm in named] == [
        ("baseline", ""),
        ("baseline-full", ""),
        ("full", "baseline-full"),
    ]


def test_a_candidate_with_other_options_gets_a_baseline_with_these(tmp_path: Path) -> None:
    (tmp_path / "arms.toml").write_text('[arm.fast]\nlike = "full"\nlr = 0.1\nfusion = "add"\n')
    arms = with_pretrained(
        choose_arms(("baseline", "full"), tmp_path / "arms.toml", controls=()), ComparisonConfig(pretrain="source")
    )
    by_name = {arm.name: arm for arm in arms}
    assert by_name["full"].reference == "baseline-full"
    assert by_name["fast"].reference == "baseline-fast"
    assert by_name["baseline-fast"].options == {
        "arch": "baseline",
        "init": "full",
        "lr": 0.1,
        "start": "pretrained/all/baseline-fast",
    }


def test_pretraining_is_repeated_with_the_seed_and_maps_of_its_arm(
    shards: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended = Pretended(monkeypatch, lambda config: 0.5)
    options = {"folds": 2, "repeats": 2, "jobs": 1, "pretrain": str(source)}
    # configurations are checked before the pretraining is there
    compare(shards, tmp_path, choose_arms(FULL), QUICK, **settings(**options))
    trained = {str(Path(run).relative_to(tmp_path)): config for run, config in pretended.trained}
    first = {run: config for run, config in trained.items() if run.startswith("pretrained")}
    assert {run: (config.arch, config.maps, config.seed) for run, config in first.items()} == {
        f"pretrained/all/{arm}/seed-{seed}": (arch, maps, seed)
        for arm, arch, maps in (
            ("full", "modulated", "own"),
            ("full-mismatched", "modulated", "mismatched"),
            ("baseline-full", "baseline", "own"),
        )
        for seed in (0, 1)
    }
    # same steps and first weights but for what an arm adds
    assert len({(config.epochs, config.lr, config.limit, config.init) for config in first.values()}) == 1
    for arm in ("full", "full-mismatched", "baseline-full"):
        for seed in (0, 1):
            config = trained[f"runs/all-images/{arm}/seed-{seed}-fold-2"]
            assert config.start == str((tmp_path / f"pretrained/all/{arm}/seed-{seed}").resolve())
            assert config.init == "full"


def test_a_given_start_is_a_warning(shards: Path, tmp_path: Path) -> None:
    arms = with_pretrained(choose_arms(("baseline", "full"), start="run"), ComparisonConfig())
    (warning,) = unequal_starts(arms)
    assert warning.startswith("full has seen source images which baseline has not")
    assert unequal_starts(with_pretrained(choose_arms(FULL), ComparisonConfig(pretrain="source"))) == []


def test_a_dry_run_counts_pretraining_by_repeat(shards: Path, source: Path, tmp_path: Path) -> None:
    plan, tasks, estimate = plan_only(
        shards,
        tmp_path / "out",
        choose_arms(("baseline", "full"), controls=()),
        QUICK,
        **settings(folds=2, repeats=2, pretrain=str(source), pretrain_size=("12", "all"), jobs=1),
    )
    assert [arm.name for arm in plan.arms] == [
        "baseline",
        "full-12",
        "full-all",
        "baseline-full-12",
        "baseline-full-all",
    ]
    assert {purpose: part.runs for purpose, part in estimate.parts.items()} == {"pretraining": 8, "training": 20}
    assert len(tasks) == 28
    assert set(estimate.seconds_per_step) == {arm.name for arm in plan.arms} | {
        f"pretraining of {arm.name}" for arm in plan.arms[1:]
    }


@pytest.mark.slow
def test_baselines_and_full_arms_train_from_their_own_pretraining(
    shards: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable_plots(monkeypatch)
    arms = choose_arms(FULL)
    arms = (dataclasses.replace(arms[0], options={"arch": "baseline", "init": "scratch"}), *arms[1:])
    comparison = compare(
        shards,
        tmp_path,
        arms,
        QUICK,
        **settings(folds=2, repeats=2, pretrain=str(source), pretrain_size=("12",), jobs=1),
    )
    assert (comparison.runs, comparison.failed) == (16, 0)
    made = {(c.arm, c.against): c for c in comparison.results.settings[0].contrasts}
    assert made["full", "baseline-full"].role == "reference"
    assert (made["full", "baseline"].role, made["full", "baseline"].final.verdict) == ("descriptive", None)
