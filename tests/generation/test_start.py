"""The cache of prepared networks: later runs use it, and its state never changes the bytes of shards."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saliency_pipeline.models.source.source import load_source
from tests.generation.examples import COMMAND, OPTIONS, flat, kept, run, salpipe

SLOW_TO_IMPORT = ("timm", "torchvision", "captum", "torch._dynamo", "huggingface_hub", "matplotlib")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("photographs"), 5)


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that uses the cache of all tests."""
    folder = tmp_path_factory.mktemp("run")
    run(images, folder)
    return kept(folder)


def test_every_entry_may_be_cut_in_half(images: Path, tmp_path: Path, empty_cache: Path) -> None:
    options = {"backend": "openvino"}
    run(images, tmp_path / "first", **options)
    expected = kept(tmp_path / "first")
    entries = {path: path.read_bytes() for path in empty_cache.glob("networks/*")}
    kinds = {path.name.partition("-")[0] for path in entries}
    assert kinds == {"source", "layer", "network", "openvino"}
    for path, whole in entries.items():
        path.write_bytes(whole[: len(whole) // 2])
        run(images, tmp_path / path.name, **options)
        assert kept(tmp_path / path.name) == expected
        # OpenVINO numbers the nodes it makes anew in every process
        assert path.stat().st_size == pytest.approx(len(whole), rel=0.01)


def test_what_is_chosen_is_the_same_with_and_without_a_cache(images: Path, tmp_path: Path, empty_cache: Path) -> None:
    options = {"backend": "auto", "precision": "auto"}
    first = run(images, tmp_path / "first", **options)
    (proof,) = empty_cache.glob("networks/proof-*")
    second = run(images, tmp_path / "second", **options)
    proof.write_bytes(b"")
    third = run(images, tmp_path / "third", **options)
    assert (third.backend, third.precision) == (first.backend, first.precision)
    assert proof.stat().st_size > 0
    assert (second.backend, second.precision, second.layers) == (first.backend, first.precision, first.layers)
    assert kept(tmp_path / "second") == kept(tmp_path / "first")


def test_a_cache_that_cannot_be_written_changes_nothing(
    images: Path, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    run(images, tmp_path / "shards")
    assert kept(tmp_path / "shards") == plain


def test_a_user_without_a_home_is_served(
    images: Path, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def raising(_name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_path", raising)
    run(images, tmp_path / "shards")
    assert kept(tmp_path / "shards") == plain
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


@pytest.mark.slow
def test_two_first_runs_at_once(images: Path, tmp_path: Path, empty_cache: Path) -> None:
    runs = [salpipe("generate", images, "-o", tmp_path / name, *COMMAND, "--json") for name in ("one", "other")]
    for process in runs:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert kept(tmp_path / "one") == kept(tmp_path / "other")
    names = [path.name.partition("-")[0] for path in empty_cache.glob("networks/*")]
    assert sorted(names) == ["layer", "network", "source"]


def test_a_prepared_network_needs_no_library_of_networks(images: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    code = (
        "import sys; from saliency_pipeline.generation.run import generate; "
        f"generate({str(images)!r}, {str(tmp_path / 'shards')!r}, **{OPTIONS!r}); "
        f"print([name for name in {SLOW_TO_IMPORT} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert kept(tmp_path / "shards") == plain


def test_other_weights_under_the_same_name_are_noticed(images: Path, tmp_path: Path, empty_cache: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = {
            name: torch.rand_like(value) if value.is_floating_point() else value
            for name, value in load_source("test_resnet", "none").module.state_dict().items()
        }
        torch.save(state, tmp_path / "weights.pth")
        run(images, tmp_path / str(seed), weights=str(tmp_path / "weights.pth"))
    assert kept(tmp_path / "1")["shard-00000.h5"] != kept(tmp_path / "2")["shard-00000.h5"]
    cached = load_source("test_resnet", str(tmp_path / "weights.pth"))
    assert torch.equal(cached.module.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
