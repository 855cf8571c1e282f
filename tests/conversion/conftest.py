"""Shards and their exports, made once and only read."""

from pathlib import Path

import pytest

from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.shards.reader import ShardFolder
from tests.conversion.examples import rich_folder


@pytest.fixture(autouse=True, scope="session")
def no_network(tmp_path_factory: pytest.TempPathFactory):
    """The libraries of Hugging Face look nothing up and keep nothing in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        yield


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """Raw shards. Not to be changed."""
    return rich_folder(tmp_path_factory.mktemp("raw") / "shards")


@pytest.fixture(scope="session")
def jpeg_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    """The same images as JPEG files. Not to be changed."""
    return rich_folder(tmp_path_factory.mktemp("jpeg") / "shards", "jpeg")


@pytest.fixture(scope="session")
def exports(shards: ShardFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export of the raw shards in each format. Not to be changed."""
    root = tmp_path_factory.mktemp("exports")
    return {to: Path(convert(shards.path, root / to, to=to).folder) for to in ("webdataset", "parquet", "png")}
