"""Checkpoints: a run resumes where it stopped, and a file from anywhere does no harm."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.checkpoint import LAST, EpochMetrics, State, load_last, save_last

ROW = EpochMetrics(1, 0.5, 0.5, 0.5, 0.5, None, 0.5, 0.1, 1.0, 1.0, 0.0)


def parts(features: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network and its optimizer after one step."""
    network = torch.nn.Linear(features, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, features)).sum().backward()
    optimizer.step()
    return network, optimizer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_last(tmp_path, *parts(), State(epoch=1, step=2, seen=4, rows=[ROW], best=ROW))
    return tmp_path


def forge(run: Path, **state: object) -> None:
    """Change fields of the stored state."""
    with safe_open(run / LAST, framework="pt") as file:
        description = json.loads(file.metadata()["salpipe"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    description["state"] |= state
    save_file(tensors, run / LAST, {"salpipe": json.dumps(description)})


def test_a_run_resumes_where_it_stopped(run: Path) -> None:
    network, optimizer = parts()
    assert load_last(run, network, optimizer) == State(epoch=1, step=2, seen=4, rows=[ROW], best=ROW)
    forge(run, stale=3)
    assert load_last(run, network, optimizer).stale == 3


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": "1"},
        {"epoch": 2},
        {"step": -1},
        {"seen": 1.5},
        {"loss_sum": "x"},
        {"rows": [[]]},
        {"rows": [{"epoch": "=1"}]},
        {"rows": 5},
        {"best": 7},
        {"best": None},
        {"epoch": 0, "rows": [], "best": None, "stale": 1},
        {"seen": 0},
        {"step": 0},
        {"more": 1},
    ],
)
def test_a_state_that_contradicts_itself_is_damage(run: Path, state: dict[str, object]) -> None:
    forge(run, **state)
    with pytest.raises(SalpipeError, match=r"damaged .*; remove it to start the run again"):
        load_last(run, *parts())


def test_a_checkpoint_of_another_network_is_named_before_it_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_pipeline.training.checkpoint.read_state", lambda *_: pytest.fail("it was read"))
    with pytest.raises(SalpipeError, match=r"of another network: 1 wrong shape: weight \[2, 3\] instead of \[2, 4\]"):
        load_last(run, *parts(4))


def test_what_is_no_checkpoint_is_damage(tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(b"# Read me")
    with pytest.raises(SalpipeError, match=r"damaged .not a \.safetensors file"):
        load_last(tmp_path, *parts())
