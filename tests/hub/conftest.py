"""A fake Hub that the library uses, a token for it, a run and shards."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from saliency_pipeline.evaluation.evaluate import evaluate
from tests.evaluation.runs import run_on
from tests.hub.fake_hub import TOKEN, FakeHub, serving
from tests.training.examples import disable_plots, labeled


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty Hub; the user is logged in."""
    with serving() as server:
        # read from the environment when the library is imported
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        # tests of other libraries may have set these before
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # xet needs servers of its own
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name that occurs nowhere else."""
    return tmp_path_factory.mktemp("somebodys-secret-folder")


@pytest.fixture(scope="package")
def shards(home: Path) -> Path:
    return labeled(home / "shards", 48)


@pytest.fixture(scope="package")
def run(shards: Path, home: Path) -> Path:
    """A run with an evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        run_on(shards, home / "run", epochs=1)
        evaluate(home / "run", shards, "test")
    (home / "run" / "curves.png").write_bytes(b"\x89PNG, as it were")
    return home / "run"
