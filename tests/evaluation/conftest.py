"""Images, shards and trained runs that tests only read; each is made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.evaluation.runs import PHOTOGRAPHS, run_on, shards_of
from tests.generation.examples import photographs
from tests.training.examples import labeled


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine threads wait for one another far longer than networks this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 figures of three classes in noise, with maps; a quarter for testing."""
    return labeled(tmp_path_factory.mktemp("figures") / "shards")


@pytest.fixture(scope="session")
def figure_run(figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modulated network that classifies most figures correctly."""
    return run_on(figures, tmp_path_factory.mktemp("figure-run") / "run", epochs=2)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of two classes, in a training and a validation split."""
    return photographs(tmp_path_factory.mktemp("photos"), PHOTOGRAPHS)


@pytest.fixture(scope="session")
def photo_shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards, by the source model that is the default."""
    folder = tmp_path_factory.mktemp("photo-shards") / "shards"
    return shards_of(photos, folder, model="efficientnet_lite0", weights="default")


@pytest.fixture(scope="session")
def photo_run(photo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modulated network trained on them."""
    return run_on(photo_shards, tmp_path_factory.mktemp("photo-run") / "run")


@pytest.fixture(scope="session")
def tiny_shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the same photographs by a tiny network of random weights."""
    return shards_of(photos, tmp_path_factory.mktemp("tiny-shards") / "shards")


@pytest.fixture(scope="session")
def tiny_run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modulated network trained on those."""
    return run_on(tiny_shards, tmp_path_factory.mktemp("tiny-run") / "run")


@pytest.fixture(scope="session")
def baseline(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that needs no maps."""
    return run_on(tiny_shards, tmp_path_factory.mktemp("baseline") / "run", arch="baseline")
