"""Shards that the workers of a cluster write: the bytes of one machine, whatever happens to the workers."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.datasets.parquet_rows import ParquetRecord
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.generation import fan_out
from saliency_pipeline.generation.catalogue_file import read_records, read_summary, write_catalogue
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.receipt import RECEIPTS
from saliency_pipeline.generation.run import generate
from saliency_pipeline.generation.summary import summarize
from saliency_pipeline.images.record import Catalogue, ImageRecord, RawMaps, Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.methods import registry
from tests.generation.compared import Compared
from tests.generation.examples import OPTIONS, flat, kept, run, temporaries

DASK = Workers("dask")


class Sent:
    """An engine that calls in this process, as workers would, and keeps what it sends."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def __call__(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Generator[Any]:
        for call in calls:
            data = pickle.dumps(call)
            self.bytes.append(len(data))
            yield pickle.loads(pickle.dumps(function(*pickle.loads(data))))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    engine = Sent()

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Sent]:
        yield engine

    monkeypatch.setattr("saliency_pipeline.generation.run.open_cluster", opened)
    yield engine
    fan_out._jobs.clear()


def test_workers_write_the_bytes_of_one_machine_and_are_sent_little(
    images: Path, finished: Path, tmp_path: Path, sent: Sent
) -> None:
    report = run(images, tmp_path / "shards", workers=DASK)
    assert (report.images, report.rejects, report.written, report.complete) == (12, 2, 4, True)
    assert kept(tmp_path / "shards") == kept(finished)
    assert not list(tmp_path.rglob("catalogue-*"))
    assert len(sent.bytes) == 5
    assert max(sent.bytes) < 2000
    assert run(images, tmp_path / "shards", workers=DASK).written == 0
    (tmp_path / "shards" / "shard-00002.h5").unlink()
    assert run(images, tmp_path / "shards", workers=DASK).written == 1
    assert kept(tmp_path / "shards") == kept(finished)


def test_methods_that_compare_images_have_the_same_background(
    tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.METHODS, "compared", Compared)
    images = flat(tmp_path / "images", 9)
    for name, workers in (("here", Workers()), ("there", DASK)):
        run(images, tmp_path / name, methods=("compared", "gradcam"), workers=workers)
    assert kept(tmp_path / "there") == kept(tmp_path / "here")
    assert max(sent.bytes) < 2000


def test_relative_paths_are_those_of_the_command(tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path / "images", 5)
    monkeypatch.chdir(tmp_path)
    write, before = fan_out.write_lines, kept(Path(run("images", tmp_path / "here").folder))  # type: ignore[arg-type]

    def elsewhere(*arguments: Any) -> Any:
        monkeypatch.chdir("/")
        return write(*arguments)

    monkeypatch.setattr(fan_out, "write_lines", elsewhere)
    # pickle finds functions by their names
    monkeypatch.setattr(Sent, "__call__", lambda _, function, calls: (function(*call) for call in calls))
    generate("images", "there", workers=DASK, **OPTIONS)
    assert kept(tmp_path / "there") == before


def test_a_worker_with_other_libraries_is_refused_by_its_name(
    images: Path, tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(images, tmp_path / "shards", part=(1, 2))
    versions = fan_out.library_versions
    monkeypatch.setattr(fan_out, "library_versions", lambda *names: {**versions(*names), "timm": "0.0.1"})
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    with pytest.raises(
        SalpipeError, match=r"^worker node7: timm 0\.0\.1 instead of [0-9.]+; install the same versions on all workers$"
    ):
        run(images, tmp_path / "shards", workers=DASK)


def test_a_worker_without_the_images_or_the_folder_is_refused_by_its_name(
    images: Path, tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: exists(path) and Path(path).name != images.name)
    with pytest.raises(SalpipeError, match=r"^worker node7: .*: not there; all workers must share the images$"):
        run(images, tmp_path / "shards", workers=DASK)
    monkeypatch.setattr(os.path, "exists", exists)
    monkeypatch.setattr(fan_out, "read_summary", lambda _: read_summary(tmp_path / "missing"))
    with pytest.raises(
        SalpipeError, match=r"^worker node7: .*missing: not readable here .*; all workers must share the folder$"
    ):
        run(images, tmp_path / "shards", workers=DASK)


def test_a_shard_that_another_worker_wrote_beside_its_receipt_is_written_again(
    images: Path, finished: Path, tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, late = fan_out.write_lines, [2]
    notes: list[str] = []

    def twice(shared: fan_out.SharedPlan, plan: str, index: int, lines: Any) -> Any:
        receipt = write(shared, plan, index, lines)
        if index in late:
            late.remove(index)
            (Path(shared.folder) / receipt.shard.name).write_bytes(b"x" * receipt.shard.bytes)
        return receipt

    monkeypatch.setattr(fan_out, "write_lines", twice)
    monkeypatch.setattr(Sent, "__call__", lambda _, function, calls: (function(*call) for call in calls))
    progress = Progress()
    monkeypatch.setattr(progress, "note", notes.append)
    report = run(images, tmp_path / "shards", workers=DASK, progress=progress)
    assert (report.written, late) == (4, [])
    assert "shard-00002.h5: another worker wrote it as well; written again" in notes
    assert kept(tmp_path / "shards") == kept(finished)


def test_records_of_any_kind_survive_the_file(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9\n.jpg")
    records = [
        ImageRecord("a b/é.jpg", f"/images/{odd}", 1, Split.TRAIN, (1, 2, 3, 4), ((0, 0, 5, 6), (1, 1, 2, 2))),
        ImageRecord("b", "/a.tar", offset=512, length=77, group=3, boxes_size=(8, 9), map_path="/maps/b.png"),
        ParquetRecord("c", "/c.parquet", length=9, row=4),
    ]
    catalogue = Catalogue("/images", records, ("x", "y"), taken={"seed": 3}, passed_over={"hidden": 2})
    summary = summarize(catalogue, measured=1, background=5)
    path, lines = write_catalogue(tmp_path, catalogue, summary, 1)
    assert [read_records(path, each) for each in lines] == [(record,) for record in records]
    assert read_summary(path) == summary


def test_parts_whose_catalogues_differ_have_files_of_their_own(tmp_path: Path) -> None:
    """The number of skipped files changes the first line, and with it the place of all others."""
    record = ImageRecord("a", "/images/a.jpg")
    written = []
    for skipped in (2, 1000, 2):
        catalogue = Catalogue("/images", [record], passed_over={"hidden": skipped})
        written.append(write_catalogue(tmp_path, catalogue, summarize(catalogue, measured=1), 1))
    assert len(list(tmp_path.glob("catalogue-*.jsonl"))) == 2
    assert written[0] == written[2]
    for path, (lines,) in written:
        assert read_records(path, lines) == (record,)


@pytest.mark.parametrize("model", ["runs/half", "local-dir:runs/half"])
def test_a_relative_model_is_refused_on_a_running_cluster(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/half", "test_resnet", RECEIPTS):
        (tmp_path / name).mkdir(parents=True)
    catalogue, path = Catalogue("/images", [ImageRecord("a", "/images/a.jpg")]), f"{tmp_path}/runs/half"
    absolute = model.replace("runs/half", path)
    with pytest.raises(OptionError, match=rf"^--model {model}: a relative path, .* use {absolute}$"):
        fan_out.share(tmp_path, GenerateConfig(model=model), catalogue, None)
    # not where the command starts the workers, and neither names of models nor absolute paths
    for other, threads in ((model, 2), ("test_resnet", None), (absolute, None)):
        shared, _ = fan_out.share(tmp_path, GenerateConfig(model=other), catalogue, threads)
        assert shared.config.model == other


def test_maps_of_an_export_are_refused(tmp_path: Path) -> None:
    class Maps:
        @property
        def shapes(self) -> dict[str, tuple[int, int, int]]:
            return {"gradcam": (1, 2, 2)}

        def read(self) -> RawMaps:
            raise AssertionError

    record = ImageRecord("a", "/a.tar", maps=Maps())
    catalogue = Catalogue("/", [record])
    path, (lines,) = write_catalogue(tmp_path, catalogue, summarize(catalogue, measured=1), 1)
    assert read_records(path, lines) == (ImageRecord("a", "/a.tar"),)
    used = Catalogue("/", [replace(record, map_path="/a.tar")])
    with pytest.raises(OptionError, match="maps of an export are stored without a cluster"):
        write_catalogue(tmp_path, used, summarize(used, measured=1), 1)


def worker(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd="/",
        stderr=subprocess.DEVNULL,
    )


class Killer(Progress):
    """Kills a worker while it writes a shard, and starts another."""

    def __init__(self, folder: Path, workers: list[subprocess.Popen[bytes]], address: str) -> None:
        self.folder, self.workers, self.address = folder, workers, address
        self.killed = 0

    def advance(self, count: int) -> None:
        if self.killed == 0:
            until = time.monotonic() + 60
            while not temporaries(self.folder) and time.monotonic() < until:
                time.sleep(0.001)
            self.workers[0].send_signal(signal.SIGKILL)
            self.killed += 1
            self.workers.append(worker(self.address))


@pytest.mark.slow
def test_a_worker_that_dies_within_a_shard_is_replaced_by_one_that_joins(tmp_path: Path) -> None:
    distributed = import_module("distributed")
    images = flat(tmp_path / "images", 96)
    run(images, tmp_path / "whole", shard_size=8)
    scheduler = {"dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, scheduler_kwargs=scheduler) as cluster:
        address = cluster.scheduler_address
        workers = [worker(address), worker(address)]
        try:
            killer = Killer(tmp_path / "shards", workers, address)
            report = run(images, tmp_path / "shards", shard_size=8, workers=Workers("dask", address), progress=killer)
        finally:
            for process in workers:
                process.kill()
                process.wait()
    assert (report.written, report.complete, killer.killed) == (12, True, 1)
    assert kept(tmp_path / "shards") == kept(tmp_path / "whole")


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_loses_one(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    images = flat(tmp_path / "images", 96)
    run(images, tmp_path / "whole", shard_size=8)
    cluster = import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        second = cluster.add_node(num_cpus=1)

        class Remover(Progress):
            def __init__(self) -> None:
                self.removed = 0

            def advance(self, count: int) -> None:
                if not self.removed:
                    self.removed += 1
                    cluster.remove_node(second, allow_graceful=False)
                    cluster.add_node(num_cpus=1)

        remover = Remover()
        report = run(
            images, tmp_path / "shards", shard_size=8, workers=Workers("ray", cluster.address), progress=remover
        )
    finally:
        cluster.shutdown()
    assert (report.written, report.complete, remover.removed) == (12, True, 1)
    assert kept(tmp_path / "shards") == kept(tmp_path / "whole")
