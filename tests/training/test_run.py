"""Training runs: what they leave, exact resume after kills, refusals, and two processes against one."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.kills import UNDISTURBED, kill_again_and_again, script
from tests.slurm import free_port, needs_slurm, waited
from tests.training.examples import Interrupting, labeled

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=2, batch_size=8, lr=0.01, precision="fp32", device="cpu"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def tensors(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    with safe_open(run / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(shards, run, QUICK)
    return run


def test_a_run_writes_its_files(shards: Path, undisturbed: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {
        ".lock",
        "config.toml",
        "metrics.jsonl",
        "metrics.csv",
        "validation.csv",
        "curves.png",
        "summary.json",
        "provenance.json",
        "best.safetensors",
        "last.safetensors",
    }
    rows = lines(undisturbed)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "train_top1",
        "validation_loss",
        "validation_top1",
        "validation_top5",
        "validation_macro_f1",
        "lr",
        "seconds",
        "images_per_second",
        "wait_share",
    ]
    with open(undisturbed / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) if value else None for name, value in row.items()} for row in table] == rows
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert summary["best"] == max(rows, key=lambda row: row["validation_top1"])
    assert summary["last"] == rows[-1]
    provenance = json.loads((undisturbed / "provenance.json").read_text())
    assert provenance["shards"]["plan"] == "plan-labeled"
    assert provenance["images"] == {"train": 48, "validation": 24, "pool": 48}
    assert torch.__version__.startswith(provenance["environment"]["versions"]["torch"])
    assert TrainConfig.read(undisturbed) == dataclasses.replace(QUICK, method="gradcam")
    assert (undisturbed / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    trained = load_trained(undisturbed)
    assert trained.spec.classes == ("circle", "square", "stripe")
    assert trained.about["scores"]["epoch"] == summary["best"]["epoch"]


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Figures that differ by color and form are distinguished within a few epochs, from scratch."""
    folder = labeled(tmp_path / "shards", images=320)
    report = train(folder, tmp_path / "run", dataclasses.replace(QUICK, epochs=5, optimizer="adamw", lr=1e-3))
    rows = lines(tmp_path / "run")
    assert report.best.validation_top1 >= 0.9
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2


def test_the_same_run_again_changes_nothing(shards: Path, undisturbed: Path) -> None:
    before = (undisturbed / "last.safetensors").read_bytes()
    report = train(shards, undisturbed, QUICK)
    assert report.epochs == 2
    assert (undisturbed / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(("steps", "save_seconds"), [(2, 0.0), (5, 600.0), (8, 0.0), (11, 600.0), (14, 0.0)])
def test_an_interrupted_run_ends_with_the_same_weights(
    shards: Path, undisturbed: Path, tmp_path: Path, steps: int, save_seconds: float
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", QUICK, save_seconds=save_seconds, progress=Interrupting(steps))
    train(shards, tmp_path / "run", QUICK)
    assert same(tensors(tmp_path / "run"), tensors(undisturbed))
    assert same(tensors(tmp_path / "run", "best"), tensors(undisturbed, "best"))
    timeless = ("seconds", "images_per_second", "wait_share")
    for ours, theirs in zip(lines(tmp_path / "run"), lines(undisturbed), strict=True):
        assert {k: v for k, v in ours.items() if k not in timeless} == {
            k: v for k, v in theirs.items() if k not in timeless
        }


def test_more_epochs_continue_a_run(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "whole", dataclasses.replace(QUICK, epochs=3))
    train(shards, tmp_path / "pieces", dataclasses.replace(QUICK, epochs=1))
    train(shards, tmp_path / "pieces", dataclasses.replace(QUICK, epochs=3))
    assert same(tensors(tmp_path / "pieces"), tensors(tmp_path / "whole"))
    stored = TrainConfig.read(tmp_path / "pieces")
    assert stored is not None
    assert stored.epochs == 3


def test_a_network_without_maps_resumes_whatever_the_method(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, arch="baseline", method="gradcam", epochs=1)
    train(shards, tmp_path / "run", config)
    assert train(shards, tmp_path / "run", dataclasses.replace(config, epochs=2)).epochs == 2


def test_other_options_are_refused_by_name(shards: Path, undisturbed: Path) -> None:
    other = dataclasses.replace(QUICK, lr=0.5, augment=(), per_class=3)
    with pytest.raises(PlanMismatchError) as error:
        train(shards, undisturbed, other)
    for part in ("--lr 0.01 -> 0.5", "--augment crop,flip -> none", "--per-class none -> 3", "another output folder"):
        assert part in str(error.value)


def test_other_shards_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanMismatchError, match="on other shards"):
        train(labeled(tmp_path / "other", images=80), undisturbed, QUICK)


def test_other_initial_weights_are_refused(shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, init="full", start=str(tmp_path / "start"), epochs=1)
    train(shards, tmp_path / "start", dataclasses.replace(QUICK, epochs=1, seed=5))
    train(shards, tmp_path / "run", config)
    (tmp_path / "start" / "best.safetensors").write_bytes((undisturbed / "best.safetensors").read_bytes())
    with pytest.raises(PlanMismatchError, match="with other initial weights"):
        train(shards, tmp_path / "run", config)


def test_a_loss_that_is_not_finite_stops_with_the_images_and_the_remedy(shards: Path, tmp_path: Path) -> None:
    wild = dataclasses.replace(QUICK, lr=1e4, epochs=9, momentum=0.99)
    with pytest.raises(SalpipeError, match=r"not finite at epoch \d+, step \d+") as error:
        train(shards, tmp_path / "run", wild)
    assert "lower --lr" in str(error.value)
    assert "circle" in str(error.value) or "square" in str(error.value) or "validation" in str(error.value)
    if (tmp_path / "run" / "last.safetensors").exists():
        assert all(value.isfinite().all() for value in tensors(tmp_path / "run").values())


def test_bf16_has_the_same_curve_within_noise(shards: Path, tmp_path: Path) -> None:
    """At a rate low enough that rounding does not grow from step to step, on whatever processor."""
    slowly = dataclasses.replace(QUICK, lr=1e-4)
    for precision in ("fp32", "bf16"):
        train(shards, tmp_path / precision, dataclasses.replace(slowly, precision=precision))
    for ours, theirs in zip(lines(tmp_path / "bf16"), lines(tmp_path / "fp32"), strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)
    assert not same(tensors(tmp_path / "bf16"), tensors(tmp_path / "fp32"))


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may have a gradient that is none: the weights must stay finite."""
    real, steps = torch.nn.utils.get_total_norm, []

    def fails_at_the_ninth(gradients: list[torch.Tensor]) -> torch.Tensor:
        steps.append(len(gradients))
        return real(gradients) if len(steps) < 9 else torch.tensor(float("nan"))

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", fails_at_the_ninth)
    with pytest.raises(SalpipeError, match=r"its gradient is not finite at epoch 2, step 3 \(images "):
        train(shards, tmp_path / "run", QUICK, save_seconds=0.0)
    assert all(value.isfinite().all() for value in tensors(tmp_path / "run").values())
    assert len(lines(tmp_path / "run")) == 1


def test_a_run_without_its_options_is_not_resumed(shards: Path, tmp_path: Path) -> None:
    once = dataclasses.replace(QUICK, epochs=1)
    train(shards, tmp_path / "run", once)
    (tmp_path / "run" / "config.toml").unlink()
    with pytest.raises(SalpipeError, match=r"a run without its config\.toml"):
        train(shards, tmp_path / "run", once)


def test_fewer_epochs_than_there_are_is_refused(shards: Path, undisturbed: Path) -> None:
    with pytest.raises(SalpipeError, match=r"--epochs 1: .* has 2 epochs already"):
        train(shards, undisturbed, dataclasses.replace(QUICK, epochs=1))
    stored = TrainConfig.read(undisturbed)
    assert stored is not None
    assert stored.epochs == 2


def test_metrics_lost_to_a_kill_are_written_again(shards: Path, tmp_path: Path) -> None:
    once = dataclasses.replace(QUICK, epochs=1)
    train(shards, tmp_path / "run", once)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    train(shards, tmp_path / "run", once)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_the_callers_random_state_is_left_as_found(shards: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    train(shards, tmp_path / "run", dataclasses.replace(QUICK, epochs=1, limit=8))
    assert torch.equal(torch.get_rng_state(), before)


def test_early_stopping(shards: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(QUICK, lr=1e-12, epochs=50, patience=2)
    report = train(shards, tmp_path / "run", still)
    assert report.stopped_early
    assert report.epochs == report.best.epoch + 2 < 50


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "baseline", "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.5},
        {"arch": "learned", "label_smoothing": 0.1, "clip": 1.0, "class_weights": "balanced"},
        {"fusion": "concat", "fuse_at": "layer2", "schedule": "step", "step_epochs": 1, "normalize": "p99"},
        {"fusion": "input", "folds": 3, "fold": 2, "per_class": 5, "method": "gradient-simonyan", "map_target": 1},
        {"freeze": "layer3", "learn_alpha": True, "limit": 20, "augment": ("crop", "flip", "color")},
    ],
)
def test_options_train_and_resume(shards: Path, tmp_path: Path, options: dict[str, object]) -> None:
    config = dataclasses.replace(QUICK, **options)
    whole = train(shards, tmp_path / "whole", config)
    assert np.isfinite(whole.last.train_loss)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", config, save_seconds=0.0, progress=Interrupting(4))
    train(shards, tmp_path / "run", config)
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lime"}, "holds no maps of 'lime'"),
        ({"map_target": 5}, "target"),
        ({"epochs": 0}, "--epochs 0: use a number from 1"),
        ({"start": "x"}, "--from x: is for --init full"),
        ({"init": "full"}, "--init full needs --from"),
        ({"fold": 1}, "--folds"),
        ({"device": "tpu"}, "--device tpu: not available"),
        ({"freeze": "layer7"}, "--freeze layer7"),
        ({"backbone": "resnet19"}, "'resnet19' is unknown"),
    ],
)
def test_invalid_options_are_one_line(shards: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as error:
        train(shards, tmp_path / "run", dataclasses.replace(QUICK, **options))
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_names_itself(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "run", dataclasses.replace(QUICK, epochs=1))
    path = tmp_path / "run" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SalpipeError, match=r"last\.safetensors: damaged"):
        train(shards, tmp_path / "run", QUICK)


def test_a_second_run_in_the_same_folder_is_refused(shards: Path, tmp_path: Path) -> None:
    class Second(Progress):
        refused = ""

        def start(self, total: int, unit: str, label: str) -> None:
            if not self.refused:
                with pytest.raises(SalpipeError) as error:
                    train(shards, tmp_path / "run", QUICK)
                self.refused = str(error.value)

    second = Second()
    train(shards, tmp_path / "run", dataclasses.replace(QUICK, epochs=1), progress=second)
    assert "another run is writing there" in second.refused


def command(shards: Path, run: Path, *options: str) -> list[str]:
    quick = ["--backbone", "test_resnet", "--init", "scratch", "--epochs", "2", "--batch-size", "8", "--lr", "0.01"]
    return ["train", str(shards), "-o", str(run), *quick, "--precision", "fp32", "--device", "cpu", *options]


def killed_again_and_again(shards: str, run: str, moments: str, *options: str) -> None:
    arguments = command(Path(shards), Path(run), "--save-every", "0", *options)
    kill_again_and_again(
        lambda: salpipe.main(arguments, "salpipe", standalone_mode=False),
        run,
        [*json.loads(moments), UNDISTURBED],
        lambda: None,
    )


@pytest.mark.slow
def test_kills_at_any_moment_cost_nothing(shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again."""
    run, random, threads = tmp_path / "run", np.random.default_rng(0), torch.get_num_threads()
    moments = [(int(random.integers(3, 12)), float(random.uniform(0, 0.3)) if kill % 2 else 0.0) for kill in range(6)]
    call = "killed_again_and_again(*sys.argv[1:])"
    killing = script(__name__, call, shards, run, json.dumps(moments), threads=threads)
    stdout, stderr = killing.communicate()
    assert killing.returncode == 0, stderr
    codes = [code for code, _ in json.loads(stdout.splitlines()[-1])]
    # those that are killed a little later may be through by then
    assert (codes[0], codes[-1]) == (-signal.SIGKILL, 0)
    assert {*codes} == {-signal.SIGKILL, 0}
    assert same(tensors(run), tensors(undisturbed))
    assert same(tensors(run, "best"), tensors(undisturbed, "best"))
    assert not list(run.glob("tmp.*"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--freeze", "layer2", "--clip", "1", "--save-every", "0")])
def test_two_processes_train_as_one_does(shards: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    extra = {"freeze": "layer2", "clip": 1.0} if options else {}
    train(shards, one, dataclasses.replace(QUICK, **extra))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*torchrun, "-m", "saliency_pipeline.cli", *command(shards, two, "--json", *options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), name
        assert ours["train_top1"] == pytest.approx(theirs["train_top1"], abs=0.05)
    if options:
        kept = [name for name in tensors(one) if ".layer1." in name]
        assert kept
        assert all(torch.equal(tensors(one)[name], tensors(two)[name]) for name in kept)


@pytest.mark.slow
@needs_slurm
def test_two_nodes_train_as_one_process_does(slurm: Callable[..., str], shards: Path, tmp_path: Path) -> None:
    one, two, script, log = (tmp_path / name for name in ("one", "two", "job.sh", "log"))
    train(shards, one, QUICK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "two-nodes"]
    arguments = map(str, [*torchrun, *rendezvous, "-m", "saliency_pipeline.cli", *command(shards, two)])
    script.write_text(
        f"#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=1\n#SBATCH --output={log}\n"
        f"export OMP_NUM_THREADS=1\nsrun {' '.join(arguments)}\n"
    )
    job = slurm("sbatch", "--parsable", script)
    assert waited(lambda: not slurm("squeue", "-h", "-j", job), 180), log.read_text()
    assert "NumNodes=2" in slurm("scontrol", "show", "job", job)
    assert (two / "summary.json").exists(), log.read_text()
    assert json.loads((two / "provenance.json").read_text())["environment"]["processes"] == 2
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), name
