"""Runs with uses of maps: identities with the baseline, exact resume, empty maps, positive and negative controls."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import datasets, network_spec
from tests.comparison.marked import marked
from tests.evaluation.runs import Notes
from tests.kills import script
from tests.training.data.test_uses import some_empty
from tests.training.examples import Interrupting, disable_plots, labeled
from tests.training.test_run import QUICK, command, killed_again_and_again, lines, same, tensors

pytestmark = pytest.mark.usefixtures("without_plots")

USES = (
    {"use": "zoom:views=2"},
    {"use": "mask:fill=blur", "maps": "mismatched"},
    {"use": "keep"},
    {"use": "mix:labels=mass"},
    {"use": "mix:kind=mixup,p=1", "label_smoothing": 0.1, "class_weights": "balanced"},
)


def options(**more: object) -> TrainConfig:
    """`QUICK` for a baseline, or with a use."""
    network = {} if "use" in more else {"arch": "baseline"}
    return dataclasses.replace(QUICK, **network, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine threads wait for one another far longer than networks this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.fixture(scope="module")
def baseline(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "baseline"
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        train(shards, run, options())
    return run


def measured(run: Path) -> list[dict[str, float]]:
    """The metrics of a run without its times."""
    times = ("seconds", "images_per_second", "wait_share")
    return [{name: value for name, value in row.items() if name not in times} for row in lines(run)]


@pytest.mark.parametrize(
    ("use", "maps"), [("zoom", "uniform"), ("mask", "uniform"), ("keep:crop=0.5,p=0", "uniform"), ("mix:p=0", "own")]
)
def test_uses_without_effect_are_the_baseline_to_the_bit(
    shards: Path, baseline: Path, tmp_path: Path, use: str, maps: str
) -> None:
    train(shards, tmp_path / "run", options(use=use, maps=maps))
    assert same(tensors(tmp_path / "run"), tensors(baseline))
    assert measured(tmp_path / "run") == measured(baseline)


@pytest.mark.parametrize("more", USES, ids=lambda more: more["use"])
def test_an_interrupted_run_ends_with_the_same_weights(
    shards: Path, baseline: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    config = options(**more)
    train(shards, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", config, save_seconds=0.0, progress=Interrupting(4))
    train(shards, tmp_path / "run", config)
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")
    assert not same(tensors(tmp_path / "run"), tensors(baseline))


@pytest.mark.parametrize(
    ("use", "effect"),
    [("zoom", "these images stay as they are"), ("keep", "these images are trained on as without maps")],
)
def test_empty_maps_are_noted_and_counted(tmp_path: Path, use: str, effect: str) -> None:
    notes = Notes()
    train(some_empty(tmp_path / "shards"), tmp_path / "run", options(use=use, epochs=1), progress=notes)
    note = notes.find("0 everywhere and mark no place")
    assert effect in note
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    total = sum(summary["unmarked"].values())
    # the maps of images that only keep or mix reads are those of training
    assert note.startswith(f"the maps of {total} of ")
    assert total > 0


def test_processes_of_a_single_image_per_step_mix_nothing_and_are_refused(shards: Path) -> None:
    pairs, config = ShardFolder(shards), options(use="mix", batch_size=4)
    spec = network_spec(config, pairs)
    assert datasets(config, spec, pairs, world=2)
    with pytest.raises(SalpipeError, match=r"^--use mix.*: mixes images of one process, and some of 3 processes"):
        datasets(config, spec, pairs, world=3)
    datasets(options(use="keep", batch_size=4), spec, pairs, world=3)


def test_the_network_may_be_smaller_than_the_frames_and_not_larger(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--size 64: larger than the frames of .* \(32 pixels\)"):
        train(shards, tmp_path / "run", options(size=64))
    train(shards, tmp_path / "run", options(size=24, epochs=1))
    assert TrainConfig.read(tmp_path / "run").size == 24  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patches in noise per image; only the maps of `truth` show which of them is the class."""
    return marked(tmp_path_factory.mktemp("evidence") / "shards", 240)


def top1(evidence: Path, run: Path, **more: object) -> float:
    shared = {"folds": 3, "fold": 1, "epochs": 5, "optimizer": "adamw", "lr": 5e-3, "augment": (), "batch_size": 16}
    train(evidence, run, options(**shared, **more))
    return lines(run)[-1]["validation_top1"]


@pytest.fixture(scope="module")
def unaided(evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Accuracy of the baseline."""
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        return top1(evidence, tmp_path_factory.mktemp("runs") / "unaided")


@pytest.mark.parametrize("use", ["zoom", "mask"])
def test_maps_that_mark_the_evidence_help_and_others_do_not(
    evidence: Path, unaided: float, tmp_path: Path, use: str
) -> None:
    """Positive and negative control: without the maps every class looks alike."""
    assert top1(evidence, tmp_path / "truth", use=use, method="truth") > unaided + 0.4
    assert top1(evidence, tmp_path / "nothing", use=use, method="nothing") < unaided + 0.2


def killed_and_whole(shards: str, folder: str, *options: str) -> None:
    """A run that kills itself while files are written and a little later, and one that does not, in `folder`."""
    for name, moments in (("run", [(4, 0.0), (9, 0.1), (7, 0.0)]), ("whole", [])):
        killed_again_and_again(shards, str(Path(folder, name)), json.dumps(moments), *options)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["zoom", "mask", "keep", "mix"])
def test_kills_at_any_moment_cost_nothing(shards: Path, tmp_path: Path, use: str) -> None:
    killing = script(__name__, "killed_and_whole(*sys.argv[1:])", shards, tmp_path, "--use", use)
    stdout, stderr = killing.communicate()
    assert killing.returncode == 0, stderr
    (killed, *_, resumed), whole = (json.loads(line) for line in stdout.splitlines() if line.startswith("[["))
    assert (killed[0], resumed[0], whole[0][0]) == (-signal.SIGKILL, 0, 0)
    for name in ("last", "best"):
        assert same(tensors(tmp_path / "run", name), tensors(tmp_path / "whole", name))


def in_two_processes(shards: Path, run: Path, *options: str) -> list[dict[str, float]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*torchrun, "-m", "saliency_pipeline.cli", *command(shards, run, *options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return measured(run)


@pytest.mark.slow
def test_two_processes_zoom_as_one_does(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "one", options(use="zoom:views=2"))
    pair = zip(
        in_two_processes(shards, tmp_path / "two", "--use", "zoom:views=2"), lines(tmp_path / "one"), strict=True
    )
    for ours, theirs in pair:
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), name


@pytest.mark.slow
def test_two_processes_mix_within_their_own_images(shards: Path, tmp_path: Path) -> None:
    """Other partners than in one process, the same again in the same number of processes."""
    first, again = (in_two_processes(shards, tmp_path / name, "--use", "mix:p=1") for name in ("first", "again"))
    assert first == again
    assert same(tensors(tmp_path / "first"), tensors(tmp_path / "again"))
    train(shards, tmp_path / "one", options(use="mix:p=1"))
    assert first[-1]["train_loss"] == pytest.approx(lines(tmp_path / "one")[-1]["train_loss"], rel=0.2)
    assert not same(tensors(tmp_path / "one"), tensors(tmp_path / "first"))
