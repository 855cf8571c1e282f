"""The processes that train a comparison's runs: where they die, cannot be started, or are interrupted."""

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from saliency_pipeline.comparison.compare import compare
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution import engines
from saliency_pipeline.progress import Progress
from saliency_pipeline.workers import WorkerDiedError
from tests.comparison.examples import settings
from tests.comparison.test_compare import ARMS, QUICK, command, environment, runs
from tests.training.examples import labeled

pytestmark = pytest.mark.usefixtures("without_plots", "without_pages")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def test_workers_that_keep_dying_end_in_one_line(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*_: object) -> Generator[None]:
        yield from ()
        raise WorkerDiedError("SIGKILL")

    monkeypatch.setattr(engines, "run_in_workers", dying)
    with pytest.raises(SalpipeError, match=r"worker processes died 3 times \(SIGKILL\), perhaps for want of memory"):
        compare(shards, tmp_path, ARMS, QUICK, **settings(folds=2, repeats=1, jobs=2))


def test_without_shared_memory_runs_are_trained_one_by_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_pipeline.workers.check_shared_memory", raising(SalpipeError("/dev/shm: read-only")))
    monkeypatch.setattr(engines, "run_in_workers", raising(AssertionError("a worker process was started")))
    notes = Notes()
    quick = dataclasses.replace(QUICK, epochs=1)
    assert compare(shards, tmp_path, ARMS[:2], quick, **settings(folds=2, repeats=1, jobs=2), progress=notes).runs == 4
    assert [note for note in notes.all if "/dev/shm" in note] == [
        "/dev/shm: read-only; running one job at a time instead of --jobs 2"
    ]


def raising(error: BaseException) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


class Notes(Progress):
    def __init__(self) -> None:
        self.all: list[str] = []

    def note(self, text: str) -> None:
        self.all.append(text)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_of_all_processes_is_one_line(shards: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*command(shards, tmp_path / "out"), "--quiet"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not runs(tmp_path / "out"):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "salpipe: interrupted; run the same command again to resume\n")
