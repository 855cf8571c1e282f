"""Learning-rate range test: its suggestion and its files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training import find_lr
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.find_lr import HIGHEST, LOWEST, find_learning_rate, steepest
from tests.training.examples import labeled

QUICK = TrainConfig(backbone="test_resnet", init="scratch", batch_size=8, precision="fp32", device="cpu")


def test_the_loss_falls_before_the_rate_explodes(tmp_path: Path) -> None:
    result = find_learning_rate(labeled(tmp_path / "shards"), tmp_path / "lr", QUICK)
    assert result.rates[0] == LOWEST
    assert result.rates == sorted(result.rates)
    assert result.rates[-1] <= HIGHEST * (1 + 1e-9)
    assert result.suggestion is not None
    assert 1e-5 < result.suggestion < result.rates[int(np.argmin(result.losses))]
    assert json.loads((tmp_path / "lr" / "lr-find.json").read_text())["suggestion"] == result.suggestion
    assert {path.name for path in (tmp_path / "lr").iterdir()} == {"lr-find.png", "lr-find.json"}


def test_the_steepest_place_is_found_on_a_curve_worked_out_by_hand() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    losses = 2 - 1 / (1 + np.exp(-3 * (np.log10(rates) + 3)))  # falls fastest at 1e-3
    losses[85:] += np.linspace(0, 3, 15)
    suggestion = steepest(rates.tolist(), losses.tolist())
    assert suggestion == pytest.approx(1e-3, rel=0.2)


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    assert steepest([], []) is None
    assert steepest([1e-6, 1e-5], [1.0, 2.0]) is None
    assert steepest(np.geomspace(1e-6, 1, 50).tolist(), np.linspace(1, 2, 50).tolist()) is None


def test_it_stops_when_the_loss_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_lr, "HIGHEST", 1e6)
    result = find_learning_rate(labeled(tmp_path / "shards", images=48), tmp_path / "lr", QUICK)
    assert len(result.rates) < find_lr.STEPS
    assert np.isfinite(result.losses).all()


def test_what_cannot_be_trained_cannot_be_tried(tmp_path: Path) -> None:
    shards = labeled(tmp_path / "shards", images=24)
    with pytest.raises(SalpipeError, match="holds no maps of 'lime'"):
        find_learning_rate(shards, tmp_path / "lr", dataclasses.replace(QUICK, method="lime"))
