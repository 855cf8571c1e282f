"""Options of a run: stored as TOML that the command line reads, checked, compared."""

import dataclasses
import os
from pathlib import Path

import click
import pytest

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.training.config import CONFIG, TrainConfig, check_same

ODD = TrainConfig(
    arch="modulated",
    init="full",
    start='runs/"quoted" \\ é',
    augment=("color",),
    clip=0.5,
    learn_alpha=True,
    folds=5,
    fold=2,
    lr=3e-4,
    freeze="layer2",
)


@pytest.mark.parametrize("config", [TrainConfig(), ODD, TrainConfig(augment=())])
def test_a_written_configuration_is_read_back(tmp_path: Path, config: TrainConfig) -> None:
    config.write(tmp_path)
    assert TrainConfig.read(tmp_path) == config


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert TrainConfig.read(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "[train",
        "",
        "[train]\nepochs = 'many'\naugment = []",
        "[train]\nepochs = 3",
        "[train]\naugment = []\nx = 1",
        "[train]\naugment = []\nepochs = 0",
        "[train]\naugment = [1]",
        "train = " + "[" * 100_000,
    ],
)
def test_a_damaged_file_names_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(SalpipeError, match=r"config\.toml: damaged"):
        TrainConfig.read(tmp_path)


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CONFIG)
    with pytest.raises(SalpipeError, match=r"config\.toml: damaged \(not a regular file\)"):
        TrainConfig.read(tmp_path)


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    ODD.write(tmp_path)
    parent = click.Context(salpipe, info_name="salpipe", **salpipe.context_settings)
    command = salpipe.get_command(parent, "train")
    assert command is not None
    arguments = [str(tmp_path), "-o", str(tmp_path / "run"), "--config", str(tmp_path / CONFIG), "--lr", "0.5"]
    with command.make_context("train", arguments, parent=parent) as ctx:
        for field in dataclasses.fields(TrainConfig):
            expected = 0.5 if field.name == "lr" else getattr(ODD, field.name)
            assert ctx.params[field.name] == expected, field.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": float("nan")}, "--lr nan: use a number from"),
        ({"lr": 0.0}, "--lr 0.0: use a number"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"optimizer": "lion"}, "--optimizer lion: choose from sgd, adamw"),
        ({"class_weights": "some"}, "--class-weights some"),
        ({"start": "x", "init": "half"}, "--from x: is for --init full"),
        ({"folds": 1}, "--folds 1"),
        ({"lr": float("inf")}, "--lr inf: use a number"),
        ({"warmup": 50.0}, "--warmup 50: must be less than the 50 epochs"),
        ({"warmup": -1.0}, "--warmup -1.0: use a number"),
        ({"warmup": float("nan")}, "--warmup nan: use a number"),
        ({"step_epochs": 0}, "--step-epochs 0: use a number"),
        ({"gamma": 0.0}, "--gamma 0.0: use a number"),
        ({"gamma": 1.5}, "--gamma 1.5: use a number"),
        ({"schedule": "linear"}, "--schedule linear: choose from constant, cosine, step"),
        ({"alpha": float("nan")}, "--alpha nan"),
        ({"lr": 10**400}, "--lr 1000"),
        ({"epochs": 1.5}, "--epochs 1.5: use a whole number"),
        ({"epochs": True}, "--epochs True: use a whole number"),
        ({"lr": "fast"}, "--lr 'fast': use a number"),
        ({"learn_alpha": 1}, "--learn-alpha 1: use true or false"),
        ({"method": 3}, "--method 3: use text"),
        ({"augment": "crop"}, "--augment 'crop': use a list of names"),
        ({"augment": (1,)}, "--augment .*: use a list of names"),
        ({"use": "input", "fusion": "concat"}, "--use input: trains --fusion input, not concat; leave --fusion out"),
    ],
)
def test_a_value_that_is_not_permitted_names_its_option(options: dict[str, object], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        TrainConfig(**options)  # type: ignore[arg-type]


def test_only_epochs_may_change(tmp_path: Path) -> None:
    stored = dataclasses.replace(TrainConfig(), precision="bf16", device="cpu", method="gradcam")
    check_same(tmp_path, stored, dataclasses.replace(TrainConfig(), epochs=99))
    with pytest.raises(PlanMismatchError, match=r"--precision bf16 -> fp32"):
        check_same(tmp_path, stored, TrainConfig(precision="fp32"))
    check_same(tmp_path, dataclasses.replace(stored, device="cuda"), TrainConfig(device="cuda:1"))
    with pytest.raises(PlanMismatchError, match=r"--clip 1\.0 -> none"):
        check_same(tmp_path, dataclasses.replace(stored, clip=1.0), TrainConfig())
