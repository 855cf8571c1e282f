"""Calls on ray and dask: a worker without the function is named in one line; those of dask end with their block."""

import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.execution import on_ray
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.execution.engines import by_name, open_engine
from tests.arenas import arenas_of_threads


class TaskError(Exception):
    """As ray's `RayTaskError`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ray:
    """ray in this process: a call is pickled, and its failure is wrapped."""

    exceptions = SimpleNamespace(
        RayTaskError=TaskError,
        **dict.fromkeys(("WorkerCrashedError", "NodeDiedError", "RayActorError", "OutOfMemoryError"), MemoryError),
    )

    def remote(self, **_: object) -> Callable[[Callable[..., Any]], SimpleNamespace]:
        return lambda function: SimpleNamespace(remote=lambda *words: (function, pickle.loads(pickle.dumps(words))))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1}

    def wait(self, calls: list[Any]) -> tuple[list[Any], list[Any]]:
        return calls[:1], calls[1:]

    def get(self, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
        function, words = call
        try:
            return function(*words)
        except Exception as error:
            raise TaskError(error) from error

    def cancel(self, *_: object, **__: object) -> None:
        pass


def double(number: int) -> int:
    return 2 * number


def calls(function: Callable[..., Any]) -> list[Any]:
    return list(on_ray._run(Ray(), {"CPU": 1, "GPU": 0}, None, function, [(1,), (2,), (3,)]))


def test_ray_calls_a_function_by_its_name() -> None:
    assert calls(double) == [2, 4, 6]


@pytest.mark.parametrize(("module", "reason"), [("no_such", "No module named 'no_such'"), ("json", "has no attribute")])
def test_a_worker_without_the_function_is_one_line(module: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: int) -> None:
        raise AssertionError

    missing.__module__, missing.__qualname__ = module, "missing"
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    with pytest.raises(SalpipeError, match=f"^worker node7: .*{reason}.*; install the same salpipe on all workers$"):
        calls(missing)


def test_a_call_needs_no_salpipe_until_it_is_called() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    program = """if True:
        import pickle, sys
        sys.modules["saliency_pipeline"] = None  # as where it is not installed
        call = pickle.loads(sys.stdin.buffer.read())
        try:
            call(pickle.dumps((1,)))
        except ImportError as error:
            print(error)
    """
    function = SimpleNamespace(__module__="saliency_pipeline.generation.fan_out", __qualname__="write_lines")
    data = cloudpickle.dumps(by_name(function))  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stdout.startswith(b"worker ")
    assert b"No module named 'saliency_pipeline" in done.stdout


def imported(module: str) -> bool:
    return module in sys.modules


@pytest.mark.slow
def test_workers_of_dask_start_in_the_background_and_end_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(multiprocessing.active_children())
    with open_engine(Workers("dask"), 2, 1, imports=("nturl2path",)) as calls:
        assert sorted(calls(imported, [("nturl2path",), ("sndhdr",)])) == [False, True]
        assert list(calls(arenas_of_threads, [()])) == [1]
        assert len(set(multiprocessing.active_children()) - before) == 2
    assert not set(multiprocessing.active_children()) - before
    # before its workers have started
    with pytest.raises(ZeroDivisionError), open_engine(Workers("dask"), 2, 1):
        raise ZeroDivisionError
    assert not set(multiprocessing.active_children()) - before
    assert not list(tmp_path.iterdir())
