"""Names of models, lookup of their pretrained weights, and errors if these are missing."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import save_file
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.registry import SourceInfo, closed_form, list_sources
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.source.weights import state_sha256

TINY = "test_resnet.r160_in1k"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and nothing that reaches the network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path


def in_hub_cache(cache: Path, repo: str, file: str) -> Path:
    """Where the hub's library keeps a file once it is downloaded."""
    folder = cache / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd")
    (folder / "snapshots" / "0123abcd").mkdir(parents=True)
    return folder / "snapshots" / "0123abcd" / file


class ConnectError(Exception):
    """Stands for the hub's HTTP library's own error, which is no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("[Errno -2] Name or service not known"),
        OfflineModeIsEnabled("offline mode\nis enabled"),
        ConnectError(),
    ],
)
def test_no_network_and_no_cache_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked: list[str] = []

    def fail(url: str, timeout: float) -> None:
        asked.append(url)
        assert 0 < timeout <= 5
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    start = time.monotonic()
    with pytest.raises(SalpipeError) as caught:
        load_source("resnet50")
    message = str(caught.value)
    assert message.startswith("resnet50: its weights are not cached and cannot be downloaded (")
    assert message.endswith("); use the embedded 'efficientnet_lite0' or --weights PATH")
    assert " ".join(str(error).split()) in message
    assert "()" not in message
    assert "\n" not in message
    assert time.monotonic() - start < 3
    assert len(asked) == 1


def test_a_network_lost_on_the_way_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(repo: str, file: str) -> None:
        raise LocalEntryNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lost)
    with pytest.raises(
        SalpipeError, match=r"resnet50: its weights are not cached .*requested files in the local cache"
    ):
        load_source("resnet50")


@pytest.mark.parametrize("name", ["torchvision/resnet18", "gcvit_tiny"])
def test_no_network_for_files_at_an_address_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(request: urllib.request.Request, timeout: float) -> None:
        assert request.method == "HEAD"
        assert 0 < timeout <= 5
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(SalpipeError, match=f"{name}: its weights are not cached and cannot .*Name or service"):
        load_source(name)
    assert not list(cache.rglob("*.pth"))


def test_weights_that_were_never_published_are_reported(cache: Path) -> None:
    with pytest.raises(SalpipeError, match="botnet50ts_256: no pretrained weights of it exist"):
        load_source("botnet50ts_256")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_hubs_cache_is_used_without_a_network(cache: Path, file: str) -> None:
    trained = load_source(TINY, "none").module.state_dict()
    trained["fc.bias"] += 1
    path = in_hub_cache(cache, f"timm/{TINY}", file)
    save_file(trained, path) if path.suffix == ".safetensors" else torch.save(trained, path)
    source = load_source(TINY)
    assert source.weights == "default"
    assert torch.equal(source.module.state_dict()["fc.bias"], trained["fc.bias"])
    assert source.weights_sha256 == state_sha256(source.module)
    assert [info.weights for info in list_sources(TINY)] == ["cached"]


def test_a_download_goes_through_the_hub_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_source(TINY, "none").module.state_dict()
    asked: list[str] = []

    def head(url: str, timeout: float) -> None:
        asked.append(url)
        if url.endswith("model.safetensors"):
            raise EntryNotFoundError("404")

    def download(repo: str, file: str) -> str:
        path = in_hub_cache(cache, repo, file)
        torch.save(trained, path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", head)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = load_source(TINY)
    assert [url.rpartition("/")[2] for url in asked] == ["model.safetensors", "pytorch_model.bin"]
    assert torch.equal(source.module.state_dict()["fc.weight"], trained["fc.weight"])
    assert load_source(TINY).weights_sha256 == source.weights_sha256
    assert len(asked) == 2


def test_torchvisions_cache_is_used_without_a_network(cache: Path) -> None:
    name = "torchvision/squeezenet1_1"
    assert [info.weights for info in list_sources(name)] == ["download"]
    trained = load_source(name, "none").module.state_dict()
    trained["classifier.1.bias"] += 1
    path = cache / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    torch.save(trained, path)
    source = load_source(name)
    assert source.weights == "default"
    assert torch.equal(source.module.state_dict()["classifier.1.bias"], trained["classifier.1.bias"])
    assert [info.weights for info in list_sources(name)] == ["cached"]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_download_says_which_file_to_delete(cache: Path, file: str) -> None:
    path = in_hub_cache(cache, f"timm/{TINY}", file)
    path.write_bytes(b"not weights at all")
    with pytest.raises(SalpipeError, match=f"{TINY}: its cached weights cannot be loaded .*; delete ") as caught:
        load_source(TINY)
    assert str(path) in str(caught.value)


def test_without_a_pattern_the_embedded_model_and_well_known_ones_are_listed(cache: Path) -> None:
    listed = list_sources()
    assert listed[0] == SourceInfo("efficientnet_lite0", "embedded", "embedded", 224, "yes")
    assert {info.weights for info in listed[1:]} == {"download"}
    assert {info.library for info in listed[1:]} == {"timm", "torchvision"}
    assert {info.closed_form for info in listed} == {"yes", "no"}


def test_everything_is_listed_quickly_and_each_name_once(cache: Path) -> None:
    start = time.monotonic()
    listed = list_sources("*")
    assert time.monotonic() - start < 5
    names = [info.name for info in listed]
    assert len(names) == len(set(names)) > 1000
    assert {"efficientnet_lite0", "timm/efficientnet_lite0", "resnet50", "torchvision/resnet50"} <= set(names)
    assert not {"torchvision/fcn_resnet50", "vit_base_patch16_sapiens2"} & set(names)
    assert {info.weights for info in listed} == {"embedded", "download", "none available"}
    assert all(info.size >= 64 for info in listed)
    weights = {info.name: info.weights for info in listed}
    assert weights["vit_small_patch14_dinov2"] == weights["botnet50ts_256"] == "none available"


@pytest.mark.parametrize(
    ("pattern", "present", "absent"),
    [
        ("resnet18", {"resnet18", "seresnet18", "torchvision/resnet18"}, {"resnet50"}),
        ("ResNet18*", {"resnet18", "torchvision/resnet18"}, {"seresnet18"}),
        ("torchvision/res*", {"torchvision/resnet50"}, {"resnet50"}),
        ("resnet18.*", {"resnet18.a1_in1k", "resnet18.tv_in1k"}, {"resnet18", "seresnet18.x"}),
        ("lite0", {"efficientnet_lite0", "tf_efficientnet_lite0"}, {"resnet18"}),
        ("no such model", set(), {"resnet18"}),
    ],
)
def test_patterns(cache: Path, pattern: str, present: set[str], absent: set[str]) -> None:
    names = {info.name for info in list_sources(pattern)}
    assert present <= names
    assert not absent & names
    assert bool(names) == bool(present)


def shaken(module: nn.Module) -> nn.Module:
    """Moves norms away from the identity they are initialized to, which would hide them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value += 0.1 + 0.3 * torch.rand(value.shape, generator=generator)
    return module.eval()


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv2_050", "regnetx_002", "convnext_atto", "mobilenetv3_small_050", "resnetv2_18"]
)
def test_the_table_of_shortcuts_is_right(name: str) -> None:
    module = shaken(timm.create_model(name))
    with torch.no_grad():
        activations = module.forward_features(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        logits = module.forward_head(activations)
        classifier = module.get_classifier()
        pooled = activations.mean((2, 3))
        linear = isinstance(classifier, nn.Linear) and classifier.in_features == pooled.shape[1]
        equal = linear and torch.allclose(classifier(pooled), logits, rtol=1e-4, atol=1e-4)
    assert closed_form(name) == ("yes" if equal else "no")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50.a1_in1k", "yes"),
        ("tf_efficientnet_lite0", "yes"),
        ("legacy_seresnet18", "yes"),
        ("resnet50_clip.openai", "checked at run time"),
        ("inception_next_tiny", "no"),
        ("vit_tiny_patch16_224", "no"),
        ("torchvision/resnet50", "yes"),
        ("torchvision/densenet121", "checked at run time"),
        ("torchvision/mobilenet_v3_small", "no"),
        ("coatnet_0_rw_224", "checked at run time"),
    ],
)
def test_the_longest_prefix_decides(name: str, expected: str) -> None:
    assert closed_form(name) == expected


def test_libraries_are_imported_only_when_they_are_needed() -> None:
    code = (
        "import sys, saliency_pipeline.models.source.source; print('timm' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
