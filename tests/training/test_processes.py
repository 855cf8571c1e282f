"""Environment variables that make processes train together, and those that are ignored."""

import dataclasses
import os
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.processes import Processes, launchers_hidden, training_processes
from saliency_pipeline.training.run import train
from tests.training.examples import labeled
from tests.training.test_run import QUICK

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


def left(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_torchrun_sets_rank_and_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    left(TORCHRUN, monkeypatch)
    assert training_processes() == Processes(3, 4, 2)
    assert not training_processes().leading


@pytest.mark.parametrize(
    "variables",
    [
        {name: value for name, value in TORCHRUN.items() if name != "TORCHELASTIC_RUN_ID"},
        {"RANK": "3"},
        {"WORLD_SIZE": "many"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_ID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"},
    ],
)
def test_what_others_leave_makes_no_group(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    left(variables, monkeypatch)
    assert training_processes() == Processes()
    assert training_processes().leading


@pytest.mark.parametrize(
    "changed",
    [
        {"RANK": "4"},
        {"WORLD_SIZE": "x"},
        {"LOCAL_RANK": "2"},
        {"LOCAL_WORLD_SIZE": "3"},
        {"MASTER_PORT": ""},
        {"TORCHELASTIC_USE_AGENT_STORE": "True"},  # nobody answers at port 1
    ],
)
def test_variables_of_no_torchrun_that_runs_are_one_line(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left(TORCHRUN | changed, monkeypatch)
    with pytest.raises(SalpipeError, match=r"not the variables of a torchrun that is running; .*unset"):
        training_processes()


def test_lightning_does_not_see_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    left({"LT_DEVICES": "2", "LOCAL_RANK": "abc", "SLURM_PROCID": "3"}, monkeypatch)
    before = dict(os.environ)
    with launchers_hidden():
        assert not {"LT_DEVICES", "LOCAL_RANK", "SLURM_PROCID"} & set(os.environ)
    assert dict(os.environ) == before


@pytest.mark.usefixtures("without_plots")
def test_a_lone_process_trains_whatever_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Progress):
        text = ""

        def note(self, text: str) -> None:
            self.text += text

    notes = Notes()
    left({"RANK": "1", "WORLD_SIZE": "4", "LT_DEVICES": "2", "LOCAL_RANK": "abc"}, monkeypatch)
    folder = labeled(tmp_path / "shards", 24, 1)
    train(folder, tmp_path / "run", dataclasses.replace(QUICK, epochs=1), progress=notes)
    assert (tmp_path / "run" / "summary.json").exists()
    assert "trains alone" in notes.text
