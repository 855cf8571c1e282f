"""Runs with a use of maps that changes the network or the loss: exact resume, two processes, range test."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.find_lr import find_learning_rate
from saliency_pipeline.training.run import train
from tests.kills import UNDISTURBED, kill_again_and_again, script
from tests.training.examples import Interrupting
from tests.training.test_run import lines, same, tensors
from tests.uses.decoys import decoys
from tests.uses.test_attention import QUICK

pytestmark = pytest.mark.usefixtures("without_plots")

USES = ("attention-loss", "attention-loss:variant=rrr,weight=2", "pool")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoys(tmp_path_factory.mktemp("shards") / "decoys", 48)


def config(use: str, **options: object) -> TrainConfig:
    return dataclasses.replace(QUICK, arch="modulated", use=use, method="truth", **options)


def command(shards: Path | str, run: Path | str, use: str, *options: str) -> list[str]:
    quick = ["--backbone", "test_resnet", "--init", "scratch", "--epochs", "2", "--batch-size", "6", "--lr", "0.01"]
    own = ["--use", use, "--method", "truth", "--precision", "fp32", "--device", "cpu"]
    return ["train", str(shards), "-o", str(run), *quick, *own, *options]


@pytest.mark.parametrize("use", USES)
def test_an_interrupted_run_ends_with_the_same_weights(shards: Path, tmp_path: Path, use: str) -> None:
    own = config(use, class_weights="balanced")
    train(shards, tmp_path / "whole", own)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", own, save_seconds=0.0, progress=Interrupting(6))
    train(shards, tmp_path / "run", own)
    for name in ("last", "best"):
        assert same(tensors(tmp_path / "run", name), tensors(tmp_path / "whole", name))


def test_pool_is_an_architecture(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "use", config("pool"))
    train(shards, tmp_path / "arch", dataclasses.replace(QUICK, arch="pooled", method="truth"))
    assert same(tensors(tmp_path / "use"), tensors(tmp_path / "arch"))
    assert TrainConfig.read(tmp_path / "use") == TrainConfig.read(tmp_path / "arch")


def test_uniform_maps_pool_as_the_baseline_does(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "uniform", config("pool", maps="uniform"))
    train(shards, tmp_path / "baseline", QUICK)
    assert same(tensors(tmp_path / "uniform"), tensors(tmp_path / "baseline"))


def test_the_range_test_measures_the_whole_loss(shards: Path, tmp_path: Path) -> None:
    plain, whole = (
        find_learning_rate(shards, tmp_path / name, dataclasses.replace(QUICK, **options))
        for name, options in (("plain", {}), ("whole", {"use": "attention-loss:weight=5", "method": "truth"}))
    )
    assert whole.losses[0] > plain.losses[0] + 0.1


def killed_and_whole(shards: str, folder: str, use: str) -> None:
    """A run that kills itself while files are written and a little later, and one that does not, in `folder`."""
    for name, moments in (("run", ((4, 0.0), (7, 0.05), UNDISTURBED)), ("whole", (UNDISTURBED,))):
        run = Path(folder, name)
        arguments = command(shards, run, use, "--save-every", "0")
        work = functools.partial(salpipe.main, arguments, "salpipe", standalone_mode=False)
        kill_again_and_again(work, run, moments, lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["attention-loss", "pool"])
def test_kills_cost_nothing(shards: Path, tmp_path: Path, use: str) -> None:
    killing = script(__name__, "killed_and_whole(*sys.argv[1:])", shards, tmp_path, use)
    stdout, stderr = killing.communicate()
    assert killing.returncode == 0, stderr
    (killed, *_, resumed), whole = (json.loads(line) for line in stdout.splitlines() if line.startswith("[["))
    assert (killed[0], resumed[0], whole[0][0]) == (-signal.SIGKILL, 0, 0)
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("use", ["attention-loss:weight=2", "pool"])
def test_two_processes_train_as_one_does(shards: Path, tmp_path: Path, use: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(shards, one, config(use))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*torchrun, "-m", "saliency_pipeline.cli", *command(shards, two, use, "--json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=5e-3), name
