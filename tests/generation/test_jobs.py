"""One plan shared out: slices of a job array, and worker processes."""

import importlib.util
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import FolderLock
from saliency_pipeline.progress import Progress
from tests.generation.examples import COMMAND, flat, kept, receipts, run, salpipe, temporaries


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_slices_in_any_order_are_one_run(images: Path, finished: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    shards = {1: 2, 2: 1, 3: 1}
    for number in order:
        assert not (tmp_path / "shards" / "manifest.json").exists()
        report = run(images, tmp_path / "shards", part=(number, 3))
        assert (report.shards, report.written) == (shards[number], shards[number])
        assert report.complete == (number == order[-1])
    assert kept(tmp_path / "shards") == kept(finished)
    assert run(images, tmp_path / "shards", part=(2, 3)).written == 0
    assert run(images, tmp_path / "shards").written == 0


def test_a_slice_reports_its_own_images_and_rejects(images: Path, tmp_path: Path) -> None:
    reports = [run(images, tmp_path / "shards", part=(number, 2)) for number in (1, 2)]
    assert [(report.images, report.rejects, report.shards) for report in reports] == [(6, 2, 2), (6, 0, 2)]


def test_more_slices_than_shards_leave_some_with_nothing_to_do(images: Path, finished: Path, tmp_path: Path) -> None:
    for number in range(1, 7):
        report = run(images, tmp_path / "shards", part=(number, 6))
        assert report.written == (number <= 4)
    assert report.complete
    assert kept(tmp_path / "shards") == kept(finished)


def test_a_slice_runs_once_at_a_time_and_not_beside_a_whole_run(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", part=(1, 2))
    with FolderLock(tmp_path / "shards"), pytest.raises(SalpipeError, match="another run is writing there"):
        run(images, tmp_path / "shards", part=(2, 2))
    with FolderLock(tmp_path / "shards", shared=True):
        with pytest.raises(SalpipeError, match="another run is writing there"):
            run(images, tmp_path / "shards")
        assert run(images, tmp_path / "shards", part=(2, 2)).complete


@pytest.mark.slow
def test_slices_run_beside_one_another(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 60)
    command = ["generate", images, "-o", tmp_path / "shards", *COMMAND, "--shard-size", 1, "--quiet"]
    slices = [salpipe(*command, "--shards", f"{number}/2") for number in (1, 2)]
    ended = [(*process.communicate(), process.returncode) for process in slices]
    assert [(stderr, code) for _, stderr, code in ended] == [("", 0), ("", 0)]
    assert any("complete" in stdout for stdout, _, _ in ended)
    run(images, tmp_path / "whole", shard_size=1)
    assert kept(tmp_path / "shards") == kept(tmp_path / "whole")
    assert temporaries(tmp_path / "shards") == []


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_worker_processes_write_the_same_bytes(images: Path, tmp_path: Path, backend: str) -> None:
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        backend = "torch"
    for jobs in (1, 2):
        report = run(images, tmp_path / f"shards-{jobs}", backend=backend, jobs=jobs)
        assert (report.images, report.rejects, report.written, report.backend) == (12, 2, 4, backend)
    assert kept(tmp_path / "shards-2") == kept(tmp_path / "shards-1")
    assert temporaries(tmp_path / "shards-2") == []


def kill(worker: multiprocessing.process.BaseProcess) -> None:
    """As the kernel does it when memory runs out."""
    assert worker.pid is not None
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGKILL)


class Killer(Progress):
    """Kills a worker process when the first images are done."""

    def __init__(self, kills: int) -> None:
        self.kills = kills
        self.notes: list[str] = []
        self.done = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, count: int) -> None:
        self.done += count
        if self.kills:
            self.kills -= 1
            kill(multiprocessing.active_children()[0])


@pytest.mark.slow
def test_a_run_survives_the_death_of_a_worker(tmp_path: Path) -> None:
    images, killer = flat(tmp_path / "images", 60), Killer(1)
    report = run(images, tmp_path / "shards", shard_size=1, jobs=2, progress=killer)
    assert "a worker process died (SIGKILL) in attempt 1 of 3" in killer.notes
    assert (report.written, killer.done) == (60, 60)
    run(images, tmp_path / "whole", shard_size=1)
    assert kept(tmp_path / "shards") == kept(tmp_path / "whole")
    assert temporaries(tmp_path / "shards") == []


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run_in_one_line(images: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def murder() -> None:
        while not stop.wait(0.05):
            for child in multiprocessing.active_children():
                kill(child)

    thread = threading.Thread(target=murder)
    thread.start()
    try:
        with pytest.raises(SalpipeError, match=r"^worker processes died 3 times.*fewer --jobs$"):
            run(images, tmp_path / "shards", jobs=2)
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_with_their_run_and_say_nothing(tmp_path: Path, number: signal.Signals) -> None:
    images, output = flat(tmp_path / "images", 120), tmp_path / "shards"
    command = ["generate", images, "-o", output, *COMMAND, "--shard-size", 1, "--jobs", 2, "--quiet"]
    process = salpipe(*command, start_new_session=True)
    while not receipts(output):
        assert process.poll() is None
        time.sleep(0.01)
    if number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends these to all processes
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    # The workers hold the other ends of the pipes as long as they live.
    _, stderr = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert stderr == "salpipe: interrupted; run the same command again to resume\n"
    run(images, output, shard_size=1)
    run(images, tmp_path / "whole", shard_size=1)
    assert kept(output) == kept(tmp_path / "whole")
    assert temporaries(output) == []
