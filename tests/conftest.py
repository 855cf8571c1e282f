"""Fixtures of all tests: a separate cache folder, fixed random states, memory that is returned to the system."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# shells start background jobs with interruptions ignored, which processes of the tests would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
# before PyTorch is loaded: processes share the cores, and threads that wait for one another must not spin on them
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# most objects are created by imports and never released; collecting them again and again took a fifth of the time
gc.set_threshold(20_000, 10, 10)
# the suite does the same every time, however slow the machine; `HYPOTHESIS_PROFILE=default` looks for new examples
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Run the tests of a file, and those of some folders, in one process."""
    return ByNetwork(config, log) if config.getvalue("dist") == "loadfile" else None


class ByNetwork(LoadFileScheduling):
    """Keeps together the folders whose files share exported networks or trained runs."""

    def _split_scope(self, nodeid: str) -> str:
        folder = "/".join(nodeid.split("/")[:2])
        return folder if folder in ("tests/saliency", "tests/evaluation") else str(super()._split_scope(nodeid))


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep speeds of a busy test machine, and kernels for limited instructions, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """salpipe's folder in an empty cache of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "salpipe"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that runs a command of SLURM on a cluster of two nodes; for tests that are marked `needs_slurm`."""
    from tests.slurm import cluster

    with cluster(tmp_path / "slurm", monkeypatch) as run:
        yield run


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training does not plot its curves."""
    from tests.training.examples import disable_plots

    disable_plots(monkeypatch)


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons write no page, which takes most of the time of a small one."""
    monkeypatch.setattr("saliency_pipeline.comparison.output.write_report", lambda folder, *_: folder / "report.html")


@pytest.fixture(autouse=True)
def own_random_numbers() -> None:
    """The random numbers of a test do not depend on earlier tests of the process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def memory_given_back() -> Iterator[None]:
    """Return freed blocks to the system; the engine makes the allocator keep them, which adds up to gigabytes here."""
    yield
    gc.collect()
    gc.freeze()  # what is still there mostly stays to the end, and is not to be looked at after every module
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
