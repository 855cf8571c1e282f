"""Files of trained networks: round trip, reproducible bytes, damaged and foreign files; runs as source models."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models import probe
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.trained import load_trained, trained_file, write_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network

SPEC = NetworkSpec("test_resnet", ("cat", "Vögel & <b>"), 64, "modulated", learn_alpha=True)


def written(folder: Path, spec: NetworkSpec = SPEC) -> Path:
    network = build_network(spec)
    initialize(network, spec, "scratch", seed=1)
    path = folder / "best.safetensors"
    write_trained(path, network, spec, {"config": {"lr": 0.1}})
    return path


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    network = build_network(SPEC)
    initialize(network, SPEC, "scratch", seed=1)
    trained = load_trained(written(tmp_path))
    assert trained.spec == SPEC
    assert trained.about == {"config": {"lr": 0.1}}
    assert trained.preprocessing.size == 160
    assert not trained.network.training
    assert not any(p.requires_grad for p in trained.network.parameters())
    state = trained.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert load_trained(tmp_path).sha256 == trained.sha256


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert written(tmp_path / "a").read_bytes() == written(tmp_path / "b").read_bytes()


def test_which_paths_mean_a_trained_network(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert trained_file(tmp_path) == trained_file(path) == path
    assert trained_file(tmp_path / "none") is None
    assert trained_file("resnet50") is None


def describe(path: Path, text: str) -> None:
    save_file({"x": torch.zeros(2)}, path, {"salpipe": text})


GOOD = {
    "format": "salpipe-network",
    "format_version": 1,
    "about": {},
    "spec": dataclasses.asdict(SPEC),
    "preprocessing": {"size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"},
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a salpipe-network file"),
        ("[", "damaged"),
        (json.dumps(GOOD | {"format_version": 2}), "newer salpipe"),
        (json.dumps(GOOD | {"spec": {}}), "damaged .*specification is incomplete"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"size": 10**9}}), "damaged"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"classes": [1]}}), "damaged .*classes"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"alpha": "x"}}), "damaged .*other types"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"fuse_at": []}}), "damaged .*other types .fuse_at"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"size": True}}), "damaged .*other types"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"classes": ["a"] * 10**6}}), "damaged .*1000000 classes"),
        (json.dumps(GOOD | {"preprocessing": {}}), "damaged"),
        (json.dumps(GOOD | {"preprocessing": GOOD["preprocessing"] | {"std": [0, 1, 1]}}), "damaged .*impossible"),
        (json.dumps(GOOD), "damaged, or timm has changed test_resnet: .*missing"),
        (json.dumps(GOOD | {"spec": GOOD["spec"] | {"backbone": "os.system"}}), "model 'os.system' is unknown"),
    ],
)
def test_strange_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "best.safetensors"
    describe(path, text)
    with pytest.raises(SalpipeError, match=message) as error:
        load_trained(path)
    assert "\n" not in str(error.value)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SalpipeError, match="damaged"):
        load_trained(tmp_path)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match="holds no trained network"):
        load_trained(tmp_path)


@pytest.mark.parametrize("arch", ["baseline", "learned"])
def test_a_run_is_a_source_model_that_knows_its_classes(tmp_path: Path, arch: str) -> None:
    path = written(tmp_path, dataclasses.replace(SPEC, arch=arch))
    source = load_source(str(tmp_path))
    assert source.classes == SPEC.classes
    assert source.class_index("cat") == 0
    assert (source.weights, source.wnids, source.preprocessing.size) == ("trained", (), 64)
    assert source.weights_sha256 == load_trained(path).sha256
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(source.module(images), load_trained(path).network(images))


def test_a_models_name_goes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_resnet").mkdir()
    written(tmp_path / "test_resnet", dataclasses.replace(SPEC, arch="baseline"))
    monkeypatch.chdir(tmp_path)
    assert len(load_source("test_resnet", "none").classes) == 1000
    assert len(load_source("./test_resnet").classes) == 2


def test_a_modulated_run_is_no_source_model(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(SalpipeError, match="needs maps itself"):
        load_source(str(tmp_path))
    with pytest.raises(SalpipeError, match="leave out --weights"):
        load_source(str(written(tmp_path, dataclasses.replace(SPEC, arch="baseline"))), "none")


def forged(path: Path, tensors: dict[str, list[int]], **spec: object) -> Path:
    """A run's file with tensors of no values."""
    text = json.dumps(GOOD | {"spec": dataclasses.asdict(SPEC) | {"arch": "baseline", "learn_alpha": False} | spec})
    header: dict[str, object] = {"__metadata__": {"salpipe": text}}
    header |= {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    data = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data)
    return path


@pytest.mark.parametrize(
    ("tensors", "spec", "message"),
    [
        ({"backbone.head.weight": [2, 0]}, {"backbone": "vit_giant_patch14_224"}, "1 wrong shape: .* missing"),
        ({"backbone.fc.weight": [900_000, 0]}, {"classes": [str(n) for n in range(900_000)]}, "1 wrong shape"),
        ({"backbone.fc.weight": [3, 0]}, {"classes": ["", "", ""]}, "some of its classes have the same name"),
        ({"backbone.fc.weight": [1, 0]}, {"classes": ["a"], "backbone": "torchvision/regnet_y_128gf"}, "missing"),
    ],
)
def test_a_small_file_does_not_ask_for_a_large_network(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tensors: dict[str, list[int]],
    spec: dict[str, object],
    message: str,
) -> None:
    monkeypatch.setattr("saliency_pipeline.models.trained.trained.build_network", lambda _: pytest.fail("it was built"))
    with pytest.raises(SalpipeError, match=f"damaged.*{message}"):
        load_trained(forged(tmp_path / "best.safetensors", tensors, **spec))


def test_large_frames_are_not_computed_to_load_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, dataclasses.replace(SPEC, size=4096))
    sizes: list[int] = []

    def frames(size: int, count: int) -> torch.Tensor:
        sizes.append(size)
        return probe.probe_frames(size, count)

    monkeypatch.setattr("saliency_pipeline.models.trained.two_branch.probe_frames", frames)
    assert load_trained(path).spec.size == 4096
    assert sizes == [512]


def test_deep_descriptions_are_damage(tmp_path: Path) -> None:
    describe(tmp_path / "best.safetensors", "[" * 100_000)
    with pytest.raises(SalpipeError, match="nested too deeply"):
        load_trained(tmp_path)
