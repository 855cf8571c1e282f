"""Trackers: every epoch once, also after kills and resumes; a tracker that fails never stops the training."""

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from saliency_pipeline.comparison.config import Execution
from saliency_pipeline.comparison.jobs import run_task
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from saliency_pipeline.training.trackers import RECORD, TRACKERS, Tracker, Tracking, check_trackers
from tests.training.examples import Interrupting, labeled

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=2, batch_size=16, lr=0.01, precision="fp32", device="cpu"
)
ROWS = [{"epoch": n, "train_loss": 1 / n, "validation_top5": None, "lr": 0.1} for n in range(1, 5)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled", 48)


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Fake(Tracker):
    """A tracker that keeps what it receives, by identifier, and fails where a test wants it to."""

    package = "json"
    runs: ClassVar[dict[str, list[tuple[int, dict[str, float]]]]] = {}
    closed: ClassVar[list[str]] = []
    fails_at: ClassVar[int] = 0
    fails_before: ClassVar[str] = ""

    def open(self, folder: Path, name: str, id: str, config: Mapping[str, Any], epoch: int) -> str:
        if self.fails_before == "open":
            raise RuntimeError("no connection\nto the server")
        print("tracker says hello")
        self.id, self.options = id, config
        assert len(self.runs.setdefault(id, [])) == epoch
        return id

    def send(self, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == self.fails_at:
            raise OSError("disk of the server is full")
        self.runs[self.id].append((epoch, dict(values)))

    def close(self) -> None:
        self.closed.append(self.id)
        if self.fails_before == "close":
            raise RuntimeError("not flushed")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setitem(TRACKERS, "trackio", Fake)
    for name, value in (("runs", {}), ("closed", []), ("fails_at", 0), ("fails_before", "")):
        monkeypatch.setattr(Fake, name, value)
    return Fake


def epochs(fake: type[Fake]) -> list[int]:
    (sent,) = fake.runs.values()
    return [epoch for epoch, _ in sent]


def test_each_row_is_sent_once_over_resumes(fake: type[Fake], tmp_path: Path) -> None:
    for rows in (ROWS[:1], ROWS[:3], ROWS[:3], ROWS):
        tracking = Tracking(["trackio"], tmp_path, {"lr": 0.1, "clip": None}, pytest.fail)
        tracking.update(rows[:2])
        tracking.update(rows)
        tracking.close()
    assert epochs(fake) == [1, 2, 3, 4]
    assert fake.runs.popitem()[1][1] == (2, {"train/loss": 0.5, "lr": 0.1})
    assert len(fake.closed) == 4


@pytest.mark.parametrize("damaged", ["", "[]", '{"trackio": {"id": 3, "epoch": 1}}', '{"trackio": 5}'])
def test_a_damaged_record_starts_another_run(fake: type[Fake], tmp_path: Path, damaged: str) -> None:
    (tmp_path / RECORD).write_text(damaged)
    tracking = Tracking(["trackio"], tmp_path, {}, pytest.fail)
    tracking.update(ROWS)
    assert epochs(fake) == [1, 2, 3, 4]


def test_a_tracker_that_fails_gives_one_note_and_gets_the_rest_later(fake: type[Fake], tmp_path: Path) -> None:
    notes: list[str] = []
    fake.fails_at = 2
    tracking = Tracking(["trackio"], tmp_path, {}, notes.append)
    for last in range(1, 5):
        tracking.update(ROWS[:last])
    tracking.close()
    assert notes == [
        "--log trackio: failed (disk of the server is full); training continues, metrics.jsonl has all epochs, and "
        "what is missing is sent when the run is resumed"
    ]
    assert epochs(fake) == [1]
    fake.fails_at = 0
    tracking = Tracking(["trackio"], tmp_path, {}, pytest.fail)
    tracking.update(ROWS)
    assert epochs(fake) == [1, 2, 3, 4]


@pytest.mark.parametrize("moment", ["open", "close"])
def test_training_outlives_a_tracker(
    fake: type[Fake], shards: Path, tmp_path: Path, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, fake.fails_before = Notes(), moment
    report = train(shards, tmp_path / "run", QUICK, log=["trackio"], progress=progress)
    assert report.epochs == 2
    (note,) = (note for note in progress.notes if "--log" in note)
    assert note.startswith("--log trackio: failed (no connection to the server)" if moment == "open" else "--log trac")
    # the result of a command is on standard output
    assert capsys.readouterr().out == ""


def test_an_interruption_sends_what_is_finished_and_a_resumed_run_the_rest(
    fake: type[Fake], shards: Path, tmp_path: Path
) -> None:
    config = replace(QUICK, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", config, log=["trackio"], save_seconds=0.0, progress=Interrupting(5))
    first = epochs(fake)
    assert 0 < len(first) < 3
    assert fake.closed
    train(shards, tmp_path / "run", config, log=["trackio"])
    assert epochs(fake) == [1, 2, 3]
    stored = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (sent,) = fake.runs.values()
    assert [values["validation/top1"] for _, values in sent] == [row["validation_top1"] for row in stored]


def test_a_tracker_can_be_added_to_a_finished_run(fake: type[Fake], shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "run", QUICK)
    train(shards, tmp_path / "run", QUICK, log=["trackio"])
    assert epochs(fake) == [1, 2]


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_kill_while_sending_never_doubles_a_row(fake: type[Fake], tmp_path: Path, repeatable: bool) -> None:
    """Killed after the tracker has the row: one that drops repetitions gets it again, another never does."""
    pid = os.fork()
    if not pid:
        fake.send = lambda self, epoch, values: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        fake.repeatable = repeatable
        Tracking(["trackio"], tmp_path, {}, print).update(ROWS[:1])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert json.loads((tmp_path / RECORD).read_text())["trackio"]["epoch"] == (0 if repeatable else 1)


def test_trackers_that_are_missing_are_refused_before_training(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"^--log board: no such tracker; choose from tensorboard, wandb, mlflow, "):
        check_trackers(["board"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in TRACKERS:
        with pytest.raises(SalpipeError, match=rf"--log {name}: not installed; run pip install '.*\[{name}\]'$"):
            train(shards, tmp_path / "run", QUICK, log=[name])
    assert not (tmp_path / "run").exists()


def test_runs_of_a_comparison_get_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(shards: str, folder: Path, config: TrainConfig, *, log: tuple[str, ...]) -> Any:
        return SimpleNamespace(last=SimpleNamespace(validation_top1=len(log)))

    monkeypatch.setattr("saliency_pipeline.comparison.jobs.train", trained)
    task: Any = SimpleNamespace(folder="runs/a", shards="shards", config=QUICK, test=False, purpose="main")
    assert run_task(task, str(tmp_path), 1, Execution(log=("tensorboard", "wandb")).log).final == 2
    with pytest.raises(OptionError, match=r"^--log"):
        Execution(log=("board",))


def test_events_of_tensorboard_after_a_resume(tmp_path: Path) -> None:
    """An epoch that a killed process has sent, but not recorded, counts as it is sent again."""
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    for first, rows in ((0, ROWS[:2]), (1, ROWS)):
        if first:
            (tmp_path / RECORD).write_text(json.dumps({"tensorboard": {"id": "1", "epoch": first}}))
        tracking = Tracking(["tensorboard"], tmp_path, {}, pytest.fail)
        tracking.update(rows)
        tracking.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert "validation/top5" not in events.Tags()["scalars"]


def resumed(name: str, folder: Path) -> None:
    """Send two rows, and the rest in a resumed run."""
    for rows in (ROWS[:2], ROWS):
        tracking = Tracking([name], folder, {"lr": 0.1, "augment": ("crop",)}, pytest.fail)
        tracking.update(rows)
        tracking.close()


needs = {
    name: pytest.mark.skipif(
        not importlib.util.find_spec(name),
        reason=f"needs {name}, which changes other packages: pip install '.[{name}]' in another environment",
    )
    for name in ("mlflow", "trackio", "wandb")
}


# of the packages that these need
@pytest.mark.filterwarnings("ignore")
@needs["mlflow"]
def test_metrics_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    resumed("mlflow", tmp_path)
    id = json.loads((tmp_path / RECORD).read_text())["mlflow"]["id"]
    # as after a kill between sending and recording
    (tmp_path / RECORD).write_text(json.dumps({"mlflow": {"id": id, "epoch": 3}}))
    resumed("mlflow", tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(row["epoch"], row["train_loss"]) for row in ROWS]
    run = client.get_run(id)
    assert run.info.run_name == tmp_path.name
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "augment": "('crop',)"}


@pytest.mark.filterwarnings("ignore")
@needs["trackio"]
def test_metrics_of_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    resumed("trackio", tmp_path)
    from trackio.sqlite_storage import SQLiteStorage

    id = json.loads((tmp_path / RECORD).read_text())["trackio"]["id"]
    logs = SQLiteStorage.get_logs("salpipe", f"{tmp_path.name}-{id}")
    assert [(row["step"], row["train/loss"]) for row in logs] == [(row["epoch"], row["train_loss"]) for row in ROWS]


@pytest.mark.filterwarnings("ignore")
@needs["wandb"]
def test_files_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    resumed("wandb", tmp_path)
    id = json.loads((tmp_path / RECORD).read_text())["wandb"]["id"]
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{id}/run-{id}.wandb"))) == 2


class StandIn(ModuleType):
    """Calls of a package that is not installed, in order."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []


def test_calls_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of its documented functions, as the package is optional."""
    module: Any = StandIn("wandb")

    def init(**options: Any) -> SimpleNamespace:
        module.calls.append(("init", options))
        log, finish = module.calls.append, lambda: module.calls.append(("finish",))
        return SimpleNamespace(log=lambda values, step: log(("log", step, values)), finish=finish)

    module.init, module.Settings = init, lambda **options: options
    monkeypatch.setitem(sys.modules, "wandb", module)
    resumed("wandb", tmp_path)
    kinds = [call[0] for call in module.calls]
    assert kinds == ["init", "log", "log", "finish", "init", "log", "log", "finish"]
    first, second = (call[1] for call in module.calls if call[0] == "init")
    assert first == second
    assert first["resume"] == "allow"
    assert first["dir"] == str(tmp_path)
    assert first["settings"] == {"console": "off", "disable_git": True, "disable_code": True}
    assert [call[1:] for call in module.calls if call[0] == "log"] == [
        (row["epoch"], {"train/loss": row["train_loss"], "lr": 0.1}) for row in ROWS
    ]


def test_calls_of_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of its documented functions, as the package is optional."""
    module: Any = StandIn("trackio")

    def init(**options: Any) -> SimpleNamespace:
        module.calls.append((options["name"], options["resume"], options["project"]))
        return SimpleNamespace(log=lambda values, step: module.calls.append((step,)), finish=lambda: None)

    module.init = init
    monkeypatch.setitem(sys.modules, "trackio", module)
    resumed("trackio", tmp_path)
    opened = [call for call in module.calls if len(call) == 3]
    assert opened[0] == opened[1]
    assert opened[0][1:] == ("allow", "salpipe")
    assert [call for call in module.calls if len(call) == 1] == [(1,), (2,), (3,), (4,)]
