"""Runs on maps of the true boxes and of their own baseline: training, exact resume, records and refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.models.trained.trained import load_trained, write_trained
from saliency_pipeline.models.trained.training_images import TrainingImages
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.self_maps import computed_method
from saliency_pipeline.training.find_lr import find_learning_rate
from saliency_pipeline.training.leaks import LeakCheck
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import split_of
from saliency_pipeline.uses import registry
from tests.evaluation.runs import Notes
from tests.training.boxed import IMAGES, boxed
from tests.training.examples import Interrupting, disable_plots, labeled_rows
from tests.training.test_run import QUICK, same, tensors

pytestmark = pytest.mark.usefixtures("without_plots")

BASELINE = replace(QUICK, arch="baseline", epochs=1)
USES = (None, "zoom:threshold=0.4")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxed(tmp_path_factory.mktemp("shards") / "boxed", without=[5])


@pytest.fixture(scope="module")
def baseline(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / "run"
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        train(shards, folder, BASELINE)
    return folder


def own(baseline: Path, **options: Any) -> TrainConfig:
    return replace(QUICK, maps="self", from_baseline=str(baseline), **options)


def provenance(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "provenance.json").read_text()))


@pytest.mark.parametrize("use", USES)
def test_a_run_on_the_true_boxes(shards: Path, tmp_path: Path, use: str | None) -> None:
    config = replace(QUICK, maps="oracle", use=use, method="gradcam")
    report = train(shards, tmp_path / "whole", config, progress=(notes := Notes()))
    assert report.epochs == 2
    notes.find("the maps of 1 of 36 images are 0 everywhere and mark no place")
    assert provenance(tmp_path / "whole")["maps"] == {"oracle": "boxes"}
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "pieces", config, progress=Interrupting(4))
    train(shards, tmp_path / "pieces", config)
    assert same(tensors(tmp_path / "pieces"), tensors(tmp_path / "whole"))
    stored = TrainConfig.read(tmp_path / "whole")
    assert stored is not None
    assert (stored.maps, stored.method) == ("oracle", None)


@pytest.mark.parametrize("use", USES)
def test_a_run_on_maps_of_its_own_baseline(shards: Path, baseline: Path, tmp_path: Path, use: str | None) -> None:
    config = own(baseline, use=use)
    train(shards, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "pieces", config, progress=Interrupting(4))
    train(shards, tmp_path / "pieces", config)
    assert same(tensors(tmp_path / "pieces"), tensors(tmp_path / "whole"))
    network = load_trained(baseline)
    record = {"baseline": str(baseline), "sha256": network.sha256, "size": 32, "method": "gradcam"}
    assert provenance(tmp_path / "whole")["maps"] == load_trained(tmp_path / "whole").about["maps"] == record
    assert provenance(tmp_path / "whole")["leaks"] == []
    assert len(list((baseline / "maps").glob("gradcam-*/part-*.npy"))) == 1


# the others need a grid of features, which this network has for larger frames
@pytest.mark.parametrize("use", [name for name in registry.USES if name not in ("pool", "attention-loss")])
@pytest.mark.parametrize("maps", ["oracle", "self"])
def test_every_use_reads_them(shards: Path, baseline: Path, tmp_path: Path, use: str, maps: str) -> None:
    """Validation images get a map where the network needs one at test, and only then count as images without a box."""
    config = own(baseline, use=use, epochs=1) if maps == "self" else replace(QUICK, maps=maps, use=use, epochs=1)
    train(shards, tmp_path / "run", config, progress=(notes := Notes()))
    assert set(provenance(tmp_path / "run")["maps"]) >= {"oracle" if maps == "oracle" else "baseline"}
    if maps == "oracle":
        # of image 5, which validates
        noted = any("the maps of 1 of 36 images are 0 everywhere" in note for note in notes.notes)
        assert noted is config.maps_at_test


def test_maps_of_the_true_boxes_differ_from_other_maps(shards: Path, baseline: Path, tmp_path: Path) -> None:
    runs = {"oracle": replace(QUICK, maps="oracle"), "own": QUICK, "self": own(baseline)}
    for name, config in runs.items():
        train(shards, tmp_path / name, replace(config, epochs=1))
    assert not same(tensors(tmp_path / "oracle"), tensors(tmp_path / "own"))
    assert not same(tensors(tmp_path / "oracle"), tensors(tmp_path / "self"))


@pytest.mark.parametrize("start", [train, find_learning_rate])
def test_a_baseline_that_was_trained_on_held_out_images_is_refused(
    shards: Path, baseline: Path, tmp_path: Path, start: Any
) -> None:
    pairs, trained = ShardFolder(shards), load_trained(baseline)
    leaky, silent = tmp_path / "leaky", tmp_path / "silent"
    for run, images in ((leaky, TrainingImages.of(pairs.source_sha256[[0, 3, 9]])), (silent, None)):
        run.mkdir()
        write_trained(run / "best.safetensors", trained.network, trained.spec, trained.about, images)
    for run, reason in (
        (leaky, r"the network that makes the maps was trained on 2 of the 24 validation and test images; use the "),
        (silent, r"does not record all images it was trained on, which may be validation and test images; train it"),
    ):
        with pytest.raises(SalpipeError, match=f"--from-baseline {run}: .*{reason}.*--allow-leaks source-im") as error:
            start(shards, tmp_path / "run", own(run))
        assert "\n" not in str(error.value)
        assert not (run / "maps").exists()
    if start is train:
        train(shards, tmp_path / "run", own(leaky, epochs=1, allow_leaks=("source-images",)))
        (leak,) = provenance(tmp_path / "run")["leaks"]
        assert leak["sentence"] == "The network that makes the maps was trained on validation or test images."


def test_the_leak_check_passes_for_what_is_verified_alone(shards: Path, baseline: Path) -> None:
    pairs, config = ShardFolder(shards), own(baseline)
    split = split_of(config, pairs)
    check, verified = LeakCheck(pairs), load_trained(baseline).training_images
    assert check.leaks_of(config, lambda: split.validation, None, verified) == ()
    (leak,) = check.leaks_of(config, lambda: split.validation, None)
    assert leak.name == "source-images"
    for maps in ("oracle", "center-prior"):
        assert check.leaks_of(replace(QUICK, maps=maps), lambda: split.validation, None) == ()


def test_a_baseline_of_other_shards_or_of_other_weights_than_before_is_refused(
    shards: Path, baseline: Path, tmp_path: Path
) -> None:
    other = boxed(tmp_path / "other")
    with pytest.raises(SalpipeError, match=r"was trained on other shards \(.*boxed\); train a baseline on .*other"):
        train(other, tmp_path / "run", own(baseline))
    copy = tmp_path / "copy"
    copy.mkdir()
    trained = load_trained(baseline)
    write_trained(copy / "best.safetensors", trained.network, trained.spec, trained.about, trained.training_images)
    train(shards, tmp_path / "run", own(copy, epochs=1))
    changed = {**trained.about, "note": "trained for longer"}
    write_trained(copy / "best.safetensors", trained.network, trained.spec, changed, trained.training_images)
    with pytest.raises(PlanMismatchError, match=r"a run with other maps \(the network of --from-baseline, or"):
        train(shards, tmp_path / "run", own(copy, epochs=2))
    with pytest.raises(PlanMismatchError, match=f"--from-baseline {copy} -> {baseline}"):
        train(shards, tmp_path / "run", own(baseline, epochs=2))


def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    shards: Path, baseline: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=r"--from-baseline .*: is for --maps self"):
        replace(QUICK, from_baseline=str(baseline))
    with pytest.raises(OptionError, match="--maps self: needs the run whose network makes the maps; add --from-basel"):
        train(shards, tmp_path / "run", replace(QUICK, maps="self"))
    with pytest.raises(OptionError, match="compares images with others"):
        train(shards, tmp_path / "run", own(baseline, method="expected-gradients"))
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_a_relative_baseline(
    shards: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(baseline.parent)
    text = "--backbone test_resnet --init scratch --epochs 1 --precision fp32 --device cpu --maps self --use zoom"
    arguments = ["train", str(shards), "-o", str(tmp_path / "run"), *text.split(" "), "--from-baseline", "run"]
    result = CliRunner().invoke(salpipe, arguments)
    assert result.exit_code == 0, result.output
    stored = TrainConfig.read(tmp_path / "run")
    assert stored is not None
    assert (stored.from_baseline, stored.method) == (str(baseline), "gradcam")


def test_maps_of_zeros_are_counted(tmp_path: Path) -> None:
    rows = labeled_rows(IMAGES)
    for maps in rows.maps.values():
        maps[[0, 3, 9]] = 0
    shards = boxed(tmp_path / "shards", maps=rows.maps)
    # image 9 is for testing
    for config, noted in (
        (QUICK, True),
        (replace(QUICK, use="zoom"), True),
        (replace(QUICK, maps="uniform"), False),
        (replace(QUICK, arch="baseline"), False),
    ):
        run = tmp_path / f"{config.arch}-{config.maps}-{config.use is None}"
        train(shards, run, replace(config, epochs=1), progress=(notes := Notes()))
        text = "the maps of 2 of 36 images are 0 everywhere and mark no place"
        assert any(note.startswith(text) for note in notes.notes) is noted


def test_a_baseline_whose_maps_are_zeros_is_noted(
    shards: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(baseline / "best.safetensors", copy)
    method = computed_method(None)
    monkeypatch.setattr(type(method), "maps", lambda _, ask: torch.zeros(len(ask.logits()), 1, 2, 2))
    monkeypatch.setattr(type(method), "shape", lambda *_: (2, 2))
    train(shards, tmp_path / "run", own(copy, epochs=1, use="zoom"), progress=(notes := Notes()))
    notes.find("the maps of 36 of 36 images are 0 everywhere and mark no place")
