"""Validation: which epochs, with kept batches and a folded network, and what a run says of epochs without it."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training import trainer as trainer_module
from saliency_pipeline.training.checkpoint import VALIDATED
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.curves import plot_curves
from saliency_pipeline.training.data.kept import KeptBatches
from saliency_pipeline.training.processes import connect
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import set_up
from saliency_pipeline.training.shuffle import ANY_ORDER
from saliency_pipeline.training.trainer import Trainer
from saliency_pipeline.training.validation import validated_epochs
from tests.evaluation.runs import Notes
from tests.training.examples import Interrupting, labeled
from tests.training.test_run import QUICK, lines, same, tensors

pytestmark = pytest.mark.usefixtures("without_plots")

THREE = dataclasses.replace(QUICK, epochs=5, validate="every=3")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(shards, run, THREE)
    return run


def made(shards: Path, folder: Path, **options: object) -> Trainer:
    """A trainer before its first step."""
    config = dataclasses.replace(QUICK, **options)
    processes = connect("cpu", Progress())
    setup = set_up(config, ShardFolder(shards), processes.device)
    return Trainer(setup, processes, folder, shuffle=ANY_ORDER, save_seconds=600.0, progress=Progress())


def test_a_longer_run_says_that_the_last_epoch_was_validated(shards: Path, tmp_path: Path) -> None:
    notes, short = Notes(), dataclasses.replace(THREE, epochs=1)
    train(shards, tmp_path / "run", short)
    train(shards, tmp_path / "run", dataclasses.replace(short, epochs=2), progress=notes)
    assert notes.find("epoch 1 was validated as the last one, which a run that was started with 2 epochs would not do")


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("all", [1, 2, 3, 4, 5, 6, 7]),
        ("every=1", [1, 2, 3, 4, 5, 6, 7]),
        ("every=3", [3, 6, 7]),
        ("every=100", [7]),
        ("curve=2", [1, 2, 7]),
        ("curve=10", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_last_epoch_is_always_validated(text, epochs):
    assert validated_epochs(text, 7) == epochs


@pytest.mark.parametrize(
    "text", ["", "every", "every=0", "every=-1", "curve=1.5", "curve= 3", "ALL", "every=9" + "9" * 9]
)
def test_other_texts_are_refused(text):
    with pytest.raises(OptionError, match=r"--validate .*: use all, every=N or curve=N"):
        TrainConfig(validate=text)


def test_epochs_without_validation_have_empty_columns(undisturbed):
    rows = lines(undisturbed)
    assert [row["epoch"] for row in rows if row["validation_top1"] is not None] == [3, 5]
    assert all(row[name] is None for row in rows for name in VALIDATED if row["epoch"] not in (3, 5))
    assert all(row["train_loss"] > 0 for row in rows)
    with open(undisturbed / "metrics.csv", newline="") as file:
        assert [row["validation_top1"] != "" for row in csv.DictReader(file)] == [False, False, True, False, True]
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert summary["last"] == rows[-1]
    assert summary["best"] == max((rows[2], rows[4]), key=lambda row: row["validation_top1"])


def test_validation_does_not_change_training(shards, undisturbed, tmp_path):
    train(shards, tmp_path / "all", dataclasses.replace(THREE, validate="all"))
    assert same(tensors(tmp_path / "all"), tensors(undisturbed))
    every = {row["epoch"]: row for row in lines(tmp_path / "all")}
    for row in (row for row in lines(undisturbed) if row["epoch"] in (3, 5)):
        assert all(row[name] == every[row["epoch"]][name] for name in VALIDATED)


@pytest.mark.parametrize("steps", [8, 21])
def test_an_interrupted_run_validates_the_same_epochs(shards, undisturbed, tmp_path, steps):
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", THREE, save_seconds=0.0, progress=Interrupting(steps))
    train(shards, tmp_path / "run", THREE)
    assert same(tensors(tmp_path / "run"), tensors(undisturbed))
    assert same(tensors(tmp_path / "run", "best"), tensors(undisturbed, "best"))
    pairs = zip(lines(tmp_path / "run"), lines(undisturbed), strict=True)
    assert all(own[name] == other[name] for own, other in pairs for name in ("epoch", "train_loss", *VALIDATED))


def test_other_epochs_are_another_run(shards, undisturbed):
    with pytest.raises(PlanMismatchError, match="--validate every=3 -> all"):
        train(shards, undisturbed, dataclasses.replace(THREE, validate="all"))


def test_a_run_cannot_end_with_an_epoch_that_was_not_validated(shards, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", THREE, progress=Interrupting(14))
    assert len(lines(tmp_path / "run")) == 2
    with pytest.raises(SalpipeError, match=r"has that epoch already, not validated .*; use 3 or more"):
        train(shards, tmp_path / "run", dataclasses.replace(THREE, epochs=2))


def test_patience_counts_validated_epochs(shards, tmp_path):
    config = dataclasses.replace(THREE, epochs=12, validate="every=2", patience=1, lr=1e-9)
    assert train(shards, tmp_path / "run", config).epochs == 4


@pytest.mark.parametrize("arch", ["baseline", "modulated"])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_logits_are_those_of_the_network_whatever_the_batch(shards, tmp_path, monkeypatch, arch, batch):
    monkeypatch.setattr(trainer_module, "CPU_BATCH", batch)
    trainer = made(shards, tmp_path, arch=arch)
    trainer.train_epoch()
    logits = trainer.validation_logits()
    assert trainer.folded is not None
    images, maps, _ = trainer.inputs(trainer.validation.prepare(np.arange(len(logits)), 0))
    with torch.inference_mode():
        expected = trainer.network.eval()(images, maps).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_kept_batches_are_the_prepared_ones_to_the_bit(shards, tmp_path):
    trainer = made(shards, tmp_path)
    parts = [np.arange(10), np.arange(10, 24)]
    kept, anew = KeptBatches(trainer.validation), KeptBatches(trainer.validation, most=1000)
    for _ in range(2):
        for one, other in zip(kept.run(parts), anew.run(parts), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.maps, other.maps)
            assert torch.equal(one.labels, other.labels)
    assert kept.batches is not None
    assert len(kept.batches) == 2
    assert anew.batches is None
    first = trainer.validation_logits()
    assert (trainer.validation_logits() == first).all()
    trainer.kept = anew
    assert (trainer.validation_logits() == first).all()


def test_batches_of_an_interrupted_pass_are_not_kept(shards, tmp_path):
    kept = KeptBatches(made(shards, tmp_path).validation)
    batches = kept.run([np.arange(4), np.arange(4, 8)])
    next(batches)
    batches.close()
    assert kept.batches is None


def test_the_figure_connects_validated_epochs(tmp_path):
    rows = [
        {"epoch": n, "train_loss": 1 / n, "train_top1": 0.5, "lr": 0.1, "validation_loss": v, "validation_top1": v}
        for n, v in zip(range(1, 31), [None, 0.5, 0.25] * 10, strict=True)
    ]
    plot_curves(rows, tmp_path / "curves.png", "every=3")
    assert (tmp_path / "curves.png").stat().st_size > 1000
