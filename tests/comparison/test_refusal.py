"""Comparisons whose runs would leak: refused as a whole before anything is trained, or accepted and reported."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.comparison.arms import Arm, choose_arms
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.comparison.finished_runs import compare_runs
from saliency_pipeline.comparison.output import Comparison
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.models.trained.training_images import ENTRY
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.comparison.examples import settings
from tests.training.boxed import boxed
from tests.training.examples import labeled
from tests.training.leaky import IMAGES, leaky

pytestmark = pytest.mark.usefixtures("without_plots", "without_pages")

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=1, batch_size=16, lr=0.01, precision="fp32", device="cpu"
)
BASELINE = Arm("baseline", {"arch": "baseline"}, "reference")
HALF = Arm("half", {"arch": "modulated"})
PRIOR = Arm("center-prior", {"arch": "modulated", "maps": "center-prior"}, "control")
LEARNED = Arm("learned", {"arch": "learned"})
ARMS = (BASELINE, HALF, PRIOR)


def compared(shards: Path, folder: Path, *allowed: str, arms: tuple[Arm, ...] = ARMS, **options: Any) -> Comparison:
    shared = dataclasses.replace(QUICK, allow_leaks=allowed)
    return compare(shards, folder, arms, shared, **settings(**{"folds": 2, "repeats": 1, "jobs": 1, **options}))


def refused(shards: Path, folder: Path, message: str, *allowed: str, **options: Any) -> None:
    """Refused in one line, also by a dry run, and no run was begun."""
    with pytest.raises(SalpipeError, match=message) as error:
        compared(shards, folder, *allowed, **options)
    assert "\n" not in str(error.value)
    assert not (folder / "runs").exists()
    assert not (folder / "pretrained").exists()
    shared = dataclasses.replace(QUICK, allow_leaks=allowed)
    with pytest.raises(SalpipeError, match=message):
        plan_only(
            shards,
            folder,
            options.pop("arms", ARMS),
            shared,
            **settings(**{"folds": 2, "repeats": 1, "jobs": 1, **options}),
        )


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leaky(tmp_path_factory.mktemp("label-maps") / "shards", target="label")


def test_label_maps_are_refused_once_for_all_runs(label_maps: Path, tmp_path: Path) -> None:
    refused(label_maps, tmp_path, r"the maps explain every image's own label.* \(2 of 6 runs: half\)$")
    refused(label_maps, tmp_path, "--allow-leaks label-maps", "source-images")
    with pytest.raises(OptionError, match="--allow-leaks all: choose from label-maps, source-images"):
        compared(label_maps, tmp_path, "all")
    assert compared(label_maps, tmp_path / "none", arms=(BASELINE, LEARNED)).results.leaks == ()


def test_an_accepted_leak_is_in_every_run_and_in_the_results(label_maps: Path, tmp_path: Path) -> None:
    comparison = compared(label_maps, tmp_path / "a", "label-maps", arms=(BASELINE, HALF))
    (sentence,) = comparison.results.leaks
    assert sentence == (
        "The maps explain every image's own label, so that the map of a validation or test image depends on the class "
        "to be predicted (2 of 4 runs: half)."
    )
    assert json.loads((tmp_path / "a" / "results.json").read_text())["leaks"] == [sentence]
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["shared"]["allow_leaks"] == ["label-maps"]
    runs = sorted((tmp_path / "a" / "runs" / "all-images").glob("*/*"))
    assert len(runs) == 4
    for run in runs:
        assert TrainConfig.read(run).allow_leaks == ("label-maps",)  # type: ignore[union-attr]
    again = compare_runs(runs, tmp_path / "b")
    assert again.results.leaks == (sentence.replace("(2 of 4 runs: half)", "(scratch)"),)


def test_an_oracle_without_boxes_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    shards = labeled(tmp_path / "target", IMAGES)
    arms = choose_arms(["baseline", "zoom"], oracle=True)
    message = (
        r"^arm oracle-zoom: --maps oracle: .*target holds no boxes of objects; generate it again with 'salpipe "
        r"generate --boxes FILE', or with masks \(--maps-from FOLDER\), or leave the oracle arms out$"
    )
    refused(shards, tmp_path / "a", message, arms=arms)
    some = boxed(tmp_path / "some", without=range(8))
    refused(some, tmp_path / "a", "^arm oracle-zoom: .*40 of 48 images have a box in .*some, fewer than 90%", arms=arms)
    # an arm that is pretrained needs boxes of the source pairs as well
    whole, full = boxed(tmp_path / "whole"), choose_arms(["baseline", "full", "oracle-full"])
    with pytest.raises(SalpipeError, match=r"^arm oracle-full: .*target holds no boxes"):
        plan_only(whole, tmp_path / "a", full, QUICK, **settings(folds=2, repeats=1, jobs=1, pretrain=str(shards)))
    # the same without it is planned, with a measured step of every arm
    arms = tuple(
        dataclasses.replace(arm, options={**arm.options, "init": "scratch"})
        for arm in choose_arms([], uses=["zoom", "mask"])
    )
    plan, tasks, estimated = plan_only(shards, tmp_path / "b", arms, QUICK, **settings(folds=2, repeats=1, jobs=1))
    assert set(estimated.seconds_per_step) == {arm.name for arm in arms}
    assert len(tasks) == 2 * len(plan.arms)
    assert {task.config.use is None for task in tasks if task.arm != "baseline"} == {False}


def test_flags_are_read_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = leaky(tmp_path / "shards", seen=range(IMAGES), model="runs/source", weights="trained", **{ENTRY: IMAGES})
    reads: list[str] = []
    flags = Shard.flags
    monkeypatch.setattr(Shard, "flags", lambda shard, *args: reads.append(shard.path.name) or flags(shard, *args))
    message = r"was trained on \d+ of the \d+ validation and test images; .* \(12 of 36 runs: half\)"
    with pytest.raises(SalpipeError, match=message):
        compared(shards, tmp_path / "out", folds=4, repeats=3)
    assert sorted(reads) == ["shard-00000.h5", "shard-00001.h5"]


def test_shards_without_leaks_make_no_split_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_pipeline.comparison.leaks.split_of", lambda *_: pytest.fail("a split was made"))
    plan_only(leaky(tmp_path / "shards"), tmp_path / "out", ARMS, QUICK, **settings(folds=2, repeats=1, jobs=1))


def test_pretraining_on_images_of_the_comparison_is_refused(tmp_path: Path) -> None:
    shards = labeled(tmp_path / "target", IMAGES)
    arms = (BASELINE, choose_arms(["baseline", "full"])[1])
    # the same files as other shards, of which the training part is the comparison's validation part in some fold
    same = leaky(tmp_path / "same")
    message = (
        r"--from .*/pretrained/all/full/seed-0: that network was trained on \d+ of the \d+ validation and test "
        r"images; .* --allow-leaks start-images.* \(4 of 8 runs: full, baseline-full\)$"
    )
    refused(shards, tmp_path / "a", message, arms=arms, pretrain=str(same))
    other = labeled(tmp_path / "other", IMAGES, seed=1)
    comparison = compared(shards, tmp_path / "b", arms=arms, pretrain=str(other))
    assert comparison.results.leaks == ()
    # the comparison's own pretraining must not leak either
    leaking = leaky(tmp_path / "leaking", target="label", seed=2)
    message = r"leaking: the maps explain .* \(1 of 8 runs: pretraining of full\)$"
    refused(shards, tmp_path / "c", message, arms=arms, pretrain=str(leaking))


def test_a_given_start_is_checked_for_every_fold(tmp_path: Path) -> None:
    shards = labeled(tmp_path / "shards", IMAGES)
    train(shards, tmp_path / "run", QUICK)
    full = Arm("full", {"arch": "modulated", "init": "full", "start": str(tmp_path / "run")})
    refused(shards, tmp_path / "a", r"--from .*run: that network .* \(2 of 4 runs: full\)$", arms=(BASELINE, full))
    # with the shards' own split it was trained on the same images
    own = compared(shards, tmp_path / "b", arms=(BASELINE, full), folds=0)
    assert own.results.leaks == ()
