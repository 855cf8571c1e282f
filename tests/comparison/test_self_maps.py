"""Arms with maps of their own baseline: which run makes them, when, how often, and what a kill changes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.plan import make_plan
from saliency_pipeline.comparison.runs import logged
from saliency_pipeline.comparison.self_maps import own_method
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data import self_maps
from saliency_pipeline.training.data.self_maps import made_maps
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import split_of
from tests.comparison.examples import settings
from tests.comparison.test_compare import BASELINE, QUICK, SCRATCH, runs
from tests.kills import kill_again_and_again, script
from tests.training.examples import disable_plots, labeled
from tests.training.test_run import same, tensors

pytestmark = pytest.mark.usefixtures("without_plots", "without_pages")

ZOOM = Arm("zoom-self", {"arch": "baseline", "use": "zoom", "maps": "self", **SCRATCH})
HALF = Arm("half-self", {"arch": "modulated", "maps": "self", **SCRATCH})
ARMS = (BASELINE, ZOOM, HALF)
SHORT = replace(QUICK, epochs=1)
ONCE: dict[str, Any] = {"folds": 2, "repeats": 1, "jobs": 1}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Every run has one thread, whatever the number of jobs: threads decide the last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled", 48)


@pytest.fixture(scope="module")
def compared(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparisons") / "compared"
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        patch.setattr("saliency_pipeline.comparison.output.write_report", lambda *_: Path("report.html"))
        compare(shards, folder, ARMS, SHORT, **settings(**ONCE))
    return folder


def runs_of(folder: Path, arm: str) -> list[Path]:
    return sorted((folder / "runs/all-images" / arm).iterdir())


def test_the_baseline_of_the_same_fold_makes_the_maps_once(shards: Path, compared: Path) -> None:
    pairs = ShardFolder(shards)
    for number, baseline in enumerate(runs_of(compared, "baseline")):
        network = load_trained(baseline)
        (folder,) = (baseline / "maps").iterdir()
        # training and validation images, then those of the test, each once
        positions = [np.load(part)["position"] for part in sorted(folder.glob("part-*.npy"))]
        assert [len(part) for part in positions] == [36, 12]
        assert sorted(np.concatenate(positions).tolist()) == list(range(48))
        for arm in (ZOOM, HALF):
            run = runs_of(compared, arm.name)[number]
            config = TrainConfig.read(run)
            assert config is not None
            assert (config.from_baseline, config.method) == (str(baseline), "gradcam")
            assert json.loads((run / "provenance.json").read_text())["maps"]["sha256"] == network.sha256
            held_out = pairs.source_sha256[split_of(config, pairs).validation]
            assert not network.training_images.contains(held_out).any()
            assert (run / "evaluation-test/predictions.csv").is_file()
    assert json.loads((compared / "results.json").read_text())["leaks"] == []


def test_the_maps_cost_the_baselines_and_their_making(compared: Path) -> None:
    costs = json.loads((compared / "costs.json").read_text())["settings"]["all images"]
    baselines = runs_of(compared, "baseline")
    made = [made_maps(folder) for run in baselines for folder in (run / "maps").iterdir()]
    assert [images for images, _ in made] == [48, 48]
    assert min(seconds for _, seconds in made) > 0
    trained = sum(logged(run, "seconds") for run in baselines)
    for arm in (ZOOM, HALF):
        assert costs[arm.name]["self_maps"] == pytest.approx((trained + sum(spent for _, spent in made)) / 2)
    assert costs["baseline"]["self_maps"] is None
    assert made_maps(compared) == (0, 0.0)


def test_the_same_again_makes_nothing_and_arms_may_be_added(
    shards: Path, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runs(compared)
    monkeypatch.setattr(self_maps, "_make", None)
    assert compare(shards, compared, ARMS, SHORT, **settings(**ONCE)).runs == 6
    assert runs(compared) == before
    # the maps are there already
    mask = Arm("mask-self", {"arch": "baseline", "use": "mask", "maps": "self", **SCRATCH})
    comparison = compare(shards, compared, (*ARMS, mask), SHORT, **settings(**ONCE))
    assert (comparison.runs, comparison.failed) == (8, 0)
    shutil.rmtree(compared / "runs/all-images/mask-self")


@pytest.mark.slow
def test_jobs_and_kills_change_nothing(shards: Path, compared: Path, tmp_path: Path) -> None:
    assert compare(shards, tmp_path / "jobs", ARMS, SHORT, **settings(**{**ONCE, "jobs": 2})).failed == 0
    process = script("tests.comparison.test_self_maps", "killed(*sys.argv[1:])", shards, tmp_path / "killed")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    ended = json.loads(output.splitlines()[-1])
    assert [code for code, _ in ended] == [-9] * len(MOMENTS)
    # one of the kills comes while maps are there and runs that read them are not finished
    assert any(maps > 0 and finished < 6 for _, (maps, finished) in ended)
    compare(shards, tmp_path / "killed", ARMS, SHORT, **settings(**ONCE))
    for folder in ("jobs", "killed"):
        for run in runs(compared):
            assert same(tensors(tmp_path / folder / run), tensors(compared / run)), (folder, run)


MOMENTS = ((150, 0), (40, 0))


def killed(shards: str, folder: str) -> None:
    """The comparison of these tests in a process that kills itself again and again."""

    def state() -> tuple[int, int]:
        return tuple(len(list(Path(folder).rglob(name))) for name in ("part-*.npy", "runs/**/summary.json"))

    kill_again_and_again(lambda: compare(shards, folder, ARMS, SHORT, **settings(**ONCE)), folder, MOMENTS, state)


def test_a_comparison_without_a_baseline_is_refused(shards: Path, tmp_path: Path) -> None:
    reference = Arm("half", {"arch": "modulated", **SCRATCH}, "reference")
    zoomed = Arm("zoom", {"arch": "baseline", "use": "zoom", **SCRATCH})
    with pytest.raises(
        SalpipeError, match="arm zoom-self: its maps are made by a baseline of the same fold; add --arm"
    ):
        compare(shards, tmp_path / "out", (reference, zoomed, ZOOM), SHORT, **settings(**ONCE))
    full = Arm("late", {"arch": "modulated", "init": "full", "maps": "self"})
    with pytest.raises(SalpipeError, match=r"^arm late: the source pairs that it is pretrained on have"):
        plan_only(shards, tmp_path / "out", (BASELINE, full), SHORT, **settings(**ONCE, pretrain=str(shards)))
    own = Arm("odd", {**ZOOM.options, "method": "expected-gradients"})
    with pytest.raises(OptionError, match="compares images with others"):
        compare(shards, tmp_path / "out", (BASELINE, own), SHORT, **settings(**ONCE))


def test_a_run_of_another_comparison_that_saw_the_images_is_refused(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "other", replace(SHORT, arch="baseline", **SCRATCH))
    arm = replace(ZOOM, options={**ZOOM.options, "from_baseline": str(tmp_path / "other")})
    with pytest.raises(SalpipeError, match=r"other: the network that makes the maps was trained on .*2 of 4 runs"):
        compare(shards, tmp_path / "out", (BASELINE, arm), SHORT, **settings(**ONCE))


@pytest.mark.parametrize(
    ("shared", "options", "expected"),
    [
        ("gradcam", {}, "gradcam"),
        ("gradcam:layer=blocks.3", {}, "gradcam"),
        ("smoothgrad:samples=3,seed=1", {}, "smoothgrad:samples=3,seed=1"),
        ("given", {}, None),
        (None, {}, None),
        ("gradcam", {"method": "xgradcam"}, "xgradcam"),
    ],
)
def test_the_method_is_that_of_the_comparison_on_the_baselines_own_layer(
    shared: str | None, options: dict[str, Any], expected: str | None
) -> None:
    assert own_method(Arm("a", options), TrainConfig(method=shared)) == expected


def test_the_first_plain_baseline_makes_the_maps(shards: Path, tmp_path: Path) -> None:
    other = Arm("plain", {"arch": "baseline", "lr": 0.1, **SCRATCH})
    plan = make_plan(
        ShardFolder(shards), (BASELINE, other, ZOOM), SHORT, ComparisonConfig(folds=2, repeats=2), threads=1
    )
    for task in plan.tasks(tmp_path):
        expected = tmp_path / task.folder.replace("zoom-self", "baseline")
        assert task.config.from_baseline == (str(expected) if task.arm == "zoom-self" else None)


def test_a_dry_run_measures_arms_before_their_baseline_is_trained(shards: Path, tmp_path: Path) -> None:
    _, tasks, estimate = plan_only(shards, tmp_path / "out", ARMS, SHORT, **settings(**ONCE))
    assert (len(tasks), set(estimate.seconds_per_step)) == (6, {"baseline", "zoom-self", "half-self"})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_inner_runs_get_maps_of_the_baselines_inner_run(shards: Path, tmp_path: Path) -> None:
    lrs = (0.01, 0.02)
    comparison = compare(shards, tmp_path, (BASELINE, ZOOM), SHORT, **settings(**{**ONCE, "lrs": lrs}))
    assert comparison.failed == 0
    for run in tmp_path.glob("tuning/all-images/zoom-self/*/lr-*"):
        config = TrainConfig.read(run)
        assert config is not None
        baseline = Path(str(config.from_baseline))
        assert baseline.parent == tmp_path / "tuning/all-images/baseline" / run.parent.name
        chosen = TrainConfig.read(tmp_path / "runs/all-images/baseline" / run.parent.name)
        assert chosen is not None
        assert baseline.name == f"lr-{chosen.lr:g}"
        assert json.loads((run / "provenance.json").read_text())["leaks"] == []
