"""One folder of photographs and one finished run over it, for tests that copy or only read them."""

import shutil
from pathlib import Path

import pytest

from tests.generation.examples import photographs, run

NAMES = [
    *(f"train/cat/{number}.jpg" for number in (1, 2, 9, 10, 11)),
    *(f"train/dog/{number}.png" for number in (3, 20)),
    *(f"validation/cat/{number}.jpg" for number in (4, 5)),
    *(f"validation/owl/{number}.JPEG" for number in (6, 7)),
    "test/dog/8.webp",
]
BROKEN = ["train/cat/3.jpg", "validation/owl/0.png"]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs and two files that are none, in three splits and three classes. Not to be changed."""
    root = photographs(tmp_path_factory.mktemp("images"), NAMES)
    for name in BROKEN:
        (root / name).write_bytes(b"not an image")
    return root


@pytest.fixture(scope="session")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over `images`, four images per shard. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "shards"
    run(images, folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "shards"))
