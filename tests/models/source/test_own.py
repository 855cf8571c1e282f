"""One's own networks as source models: modules, factories, and networks that timm describes in a folder."""

import itertools
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.source.own import own_sha256, source_from_module
from saliency_pipeline.models.source.source import check_source, load_source
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.saliency.prepared import prepared_layers, prepared_split

NUMBERS = itertools.count()
SETTINGS = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "crop_pct": 0.9}
HALVES = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear")
NETWORK = """
from torch import nn

def make():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    network.class_names = ["cat", "dog", "great owl"]
    return network, {"size": 16, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}
"""


def network(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


class Returns(nn.Module):
    """Returns its function of a batch."""

    def __init__(self, output: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> object:
        return self.output(images)


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A factory in the current folder."""
    monkeypatch.chdir(tmp_path)
    module = f"factory{next(NUMBERS)}"
    (tmp_path / f"{module}.py").write_text(NETWORK)
    return f"{module}:make"


# ---- modules ----------------------------------------------------------------------------------------------------


def test_a_module_is_copied_and_stays_as_it_is() -> None:
    module = network().half().train()
    module[0].weight.requires_grad_(False)
    source = source_from_module(module, SETTINGS)
    assert all(part.training for part in module.modules())
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True]
    assert {p.dtype for p in module.parameters()} == {torch.float16}
    assert not any(part.training for part in source.module.modules())
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in source.module.parameters())
    assert source.weights_sha256 == state_sha256(module.float())
    assert (source.name, source.weights, source.preprocessing) == ("Sequential", "default", HALVES)
    assert (source.classes, source.file) == (("class 0", "class 1", "class 2"), None)


def test_wrappers_of_training_are_removed() -> None:
    module = network()
    assert [*source_from_module(nn.DataParallel(module), SETTINGS).module.state_dict()] == [*module.state_dict()]
    wrapped = torch.compile(module, backend="eager")
    assert [*source_from_module(wrapped, SETTINGS).module.state_dict()] == [*module.state_dict()]


@pytest.mark.parametrize(
    ("settings", "size", "interpolation"),
    [
        (HALVES, 16, "bilinear"),
        ({**SETTINGS, "interpolation": "random"}, 16, "bicubic"),
        (timm.get_pretrained_cfg("resnet18"), 224, "bicubic"),
        (torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms(), 224, "bilinear"),
    ],
    ids=["salpipe", "timm-like", "timm", "torchvision"],
)
def test_preprocessing_is_understood_in_the_forms_of_libraries(settings: object, size: int, interpolation: str) -> None:
    preprocessing = source_from_module(network(), settings).preprocessing
    assert (preprocessing.size, preprocessing.interpolation) == (size, interpolation)


def test_a_module_may_bring_its_preprocessing_and_the_names_of_its_classes() -> None:
    module: Any = network()
    module.default_cfg = SETTINGS
    module.classes = ["cat", "dog", "great owl"]
    source = source_from_module(module)
    assert source.preprocessing == HALVES
    assert [source.class_index(text) for text in ("1", "Great_Owl")] == [1, 2]
    assert source_from_module(module, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    module.pretrained_cfg = {**SETTINGS, "label_names": ["x", "y", "z"], "input_size": (3, 8, 8)}
    del module.classes
    source = source_from_module(module)
    assert (source.classes, source.preprocessing.size) == (("x", "y", "z"), 8)


def test_of_torchvisions_networks_the_usual_preprocessing_is_noted() -> None:
    source = source_from_module(torchvision.models.squeezenet1_1(), name="squeezed")
    assert source.preprocessing.mean == (0.485, 0.456, 0.406)
    assert source.notes == ("squeezed: records no preprocessing; ImageNet's, 224 pixels, bilinear, is used",)
    assert source.class_index("tabby") == 281


def test_outputs_that_may_be_meant_otherwise_are_noted() -> None:
    with_softmax = nn.Sequential(network(), nn.Softmax(1))
    assert source_from_module(with_softmax, SETTINGS).notes[0].startswith("Sequential: returns probabilities, which")
    assert source_from_module(network(1), SETTINGS).notes[0].startswith("Sequential: returns one score per image")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            lambda x: {"out": x, "aux": x},
            "returns a dict with out, aux instead of scores; let forward return one",
        ),
        (lambda x: (x, x), "returns a tuple of 2 instead of scores; "),
        (lambda x: None, "returns an object of type NoneType instead of scores"),
        (lambda x: x, r"returns a tensor of shape \(1, 3, 16, 16\) for one image"),
        (lambda x: x[0, :, 0, 0], r"returns a tensor of shape \(3,\) for one image"),
        (lambda x: x[:, 0, 0, :0], r"returns a tensor of shape \(1, 0\) for one image"),
        (lambda x: x[:, :, 0, 0].half(), "returns scores of float16; "),
        (
            lambda x: x @ x[:, :, :2],
            r"cannot classify one 16x16 image \(RuntimeError: .*\); correct it, or the input_s",
        ),
        (lambda x: [][0], r"cannot classify one 16x16 image \(IndexError: list index out of range\)"),
    ],
)
def test_modules_without_scores_are_refused_in_one_line(output: Callable[..., object], message: str) -> None:
    with pytest.raises(SalpipeError, match=f"^Returns: {message}") as caught:
        source_from_module(Returns(output), SETTINGS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            None,
            "its preprocessing is unknown; give it beside the network or as its attribute pretrained_cfg, for ",
        ),
        ({"size": 16}, "unusable preprocessing: it lacks 'mean'; give, for example, "),
        ({**SETTINGS, "mean": (124, 117, 104)}, "mean .* is not within 0 and 1, the range of pixels"),
        ({**SETTINGS, "std": (0, 1, 1)}, "normalization is impossible"),
        ({**SETTINGS, "std": 1}, "'int' object is not iterable"),
        ({**SETTINGS, "input_size": (1, 28, 28)}, r"input size \(1, 28, 28\) is not that of a square RGB image"),
        ({**SETTINGS, "input_size": None}, "input size None"),
        ({**SETTINGS, "interpolation": "nearest"}, "interpolation 'nearest' is neither bilinear nor bicubic"),
        (3, "unusable preprocessing: "),
    ],
)
def test_unusable_preprocessing_is_explained_in_one_line(settings: object, message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as caught:
        source_from_module(network(), settings, name="mine")
    assert str(caught.value).startswith("mine: ")
    assert '{"input_size": (3, 224, 224), ' in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b"], "has 2 names of classes for 3 scores"),
        ("abc", "its classes are an object of type str; give a list of strings"),
        ([1, 2, 3], "its classes are a list of 3; give a list of strings"),
    ],
)
def test_classes_are_one_name_per_score(classes: Any, message: str) -> None:
    with pytest.raises(SalpipeError, match=f"Sequential: {message}"):
        source_from_module(network(), SETTINGS, classes=classes)


def test_a_module_without_values_or_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(
        SalpipeError, match=r"Sequential: cannot be converted to float32 on the CPU .*; initialize it first"
    ):
        source_from_module(network().to("meta"), SETTINGS)
    module: Any = network()
    module.lock = threading.Lock()
    with pytest.raises(SalpipeError, match=r"Sequential: cannot be copied \(.*lock.*\); "):
        source_from_module(module, SETTINGS)


def test_unusual_modules_are_taken_or_refused_in_one_line() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(SalpipeError, match=r"Sequential: cannot be converted .*; initialize it first"):
        source_from_module(lazy, SETTINGS)
    with warnings.catch_warnings(action="ignore"):  # some versions of torch deprecate it
        script = torch.jit.trace(network(), torch.zeros(1, 3, 16, 16))
    with pytest.raises(SalpipeError, match="TorchScript: its layers cannot be observed"):
        source_from_module(script, SETTINGS)

    class WithExtraState(nn.Sequential):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

    assert len(source_from_module(WithExtraState(network()), SETTINGS).weights_sha256) == 64


def test_of_a_module_nothing_is_cached_because_its_code_is_unknown(empty_cache: Path) -> None:
    source = source_from_module(network(), SETTINGS)
    split = prepared_split(source, prepared_layers(source), 2)
    assert (source.identity, split.cache_key) == ((), ())
    assert not empty_cache.exists()


# ---- factories --------------------------------------------------------------------------------------------------


def test_a_factory_is_a_source_model_with_the_hash_of_its_code(factory: str) -> None:
    check_source(factory)
    source, again = load_source(factory), load_source(factory, "none")
    assert (source.name, source.weights, source.preprocessing.interpolation) == (factory, "default", "bicubic")
    assert source.class_index("great owl") == 2
    # torch's random state is fixed
    assert (source.weights_sha256, source.code_sha256) == (again.weights_sha256, again.code_sha256)
    assert again.weights == "default"
    assert source.code_sha256 == own_sha256(factory)
    assert source.code_sha256 in source.identity
    assert own_sha256("resnet18") is None


def test_networks_of_equal_weights_and_code_but_other_strides_have_other_identities(factory: str) -> None:
    first, second = load_source(factory), load_source(factory)
    assert first.identity == second.identity
    second.module[0].stride = (2, 2)  # type: ignore[index,union-attr]
    assert first.identity != second.identity


def test_a_checkpoint_fills_the_network_of_a_factory(factory: str, tmp_path: Path) -> None:
    trained = {f"module.{name}": value + 1 for name, value in load_source(factory).module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": trained}, tmp_path / "last.ckpt")
    source = load_source(factory, "last.ckpt")
    assert torch.equal(source.module.state_dict()["4.bias"], trained["module.4.bias"])
    assert (source.weights, source.file) == ("last.ckpt", Path("last.ckpt"))
    assert source.notes == ("last.ckpt: prefix 'module.' removed from the names of 4 tensors",)


def test_weights_of_another_number_of_classes_are_refused(factory: str, tmp_path: Path) -> None:
    torch.save(network(5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(SalpipeError) as caught:
        check_source(factory, "five.pth")
    assert str(caught.value) == (
        f"five.pth: does not fit {factory}: 2 wrong shape: 4.weight [5, 4] instead of [3, 4], 4.bias [5] instead of "
        "[3]; give the state_dict() of the network that it returns"
    )


def test_what_is_no_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no_network.py").write_text("def make(): return 'resnet18'")
    with pytest.raises(SalpipeError, match=r"model 'no_network:make': returns an object of type str instead of a netw"):
        check_source("no_network:make")


# ---- timm's repositories and folders ----------------------------------------------------------------------------


def described(folder: Path) -> dict[str, torch.Tensor]:
    """Write a network of two classes as timm's `save_for_hf` does; returns its tensors."""
    folder.mkdir(parents=True)
    module = timm.create_model("test_resnet", num_classes=2)
    nn.init.ones_(module.get_submodule("fc").bias)
    config = {**module.pretrained_cfg, "input_size": [3, 96, 96], "label_names": ["cat", "dog"], "num_classes": 2}
    config = {key: value for key, value in config.items() if isinstance(value, int | float | str | list | tuple)}
    (folder / "config.json").write_text(
        json.dumps({"architecture": "test_resnet", "num_classes": 2, "pretrained_cfg": config})
    )
    save_file(module.state_dict(), folder / "model.safetensors")
    return dict(module.state_dict())


def test_a_folder_that_timm_has_saved_is_a_source_model(tmp_path: Path) -> None:
    tensors, name = described(tmp_path / "saved"), f"local-dir:{tmp_path / 'saved'}"
    check_source(name)
    source = load_source(name)
    assert torch.equal(source.module.state_dict()["fc.bias"], tensors["fc.bias"])
    assert (source.classes, source.preprocessing.size, source.weights) == (("cat", "dog"), 96, "default")
    assert source.file == tmp_path / "saved" / "model.safetensors"
    random = load_source(name, "none")
    assert (random.weights, random.file) == ("none", None)
    assert random.weights_sha256 != source.weights_sha256
    assert source.code_sha256 == random.code_sha256 == own_sha256(name)
    filled = load_source(name, str(source.file))
    assert torch.equal(filled.module.state_dict()["fc.bias"], tensors["fc.bias"])
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(SalpipeError, match=r"saved holds neither model\.safetensors nor pytorch_model.bin"):
        load_source(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"no config.json there; give a folder of timm's save_for_hf or of a repository"),
        (
            {"architectures": ["ViTForImageClassification"]},
            r"timm cannot build it from its config.json \(.*archi",
        ),
        (
            {"architecture": "resnet0", "pretrained_cfg": {}},
            r"timm cannot build it from its config.json \(Unknown",
        ),
        ([], "timm cannot build it from its config.json"),
    ],
)
def test_a_folder_that_timm_has_not_saved_is_refused(tmp_path: Path, config: object, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SalpipeError, match=message) as caught:
        load_source(f"local-dir:{tmp_path}", "none")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without a network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    return tmp_path


@pytest.mark.parametrize("spelling", ["hf-hub:me/mine", "hf_hub:me/mine", "hf-hub:me/mine@main"])
def test_a_cached_repository_needs_no_network(hub: Path, spelling: str) -> None:
    repository = hub / "models--me--mine"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    tensors = described(repository / "snapshots" / "0123abcd")
    check_source(spelling)
    source = load_source(spelling)
    assert source.name == spelling.replace("_", "-")
    assert torch.equal(source.module.state_dict()["fc.bias"], tensors["fc.bias"])


def test_a_repository_is_downloaded_in_one_revision(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    described(tmp_path / "0123abcd")
    calls: list[tuple[str, ...]] = []

    def download(repo: str, file: str, revision: str | None = None) -> str:
        calls.append((repo, file, str(revision)))
        return str(tmp_path / "0123abcd" / file)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (tmp_path / "0123abcd" / "model.safetensors").rename(tmp_path / "weights")
    with pytest.raises(SalpipeError):
        load_source("hf-hub:me/mine@v1")
    assert calls == [("me/mine", "config.json", "v1"), ("me/mine", "model.safetensors", "0123abcd")]


def test_a_repository_without_a_network_is_one_line(hub: Path) -> None:
    for check in (check_source, load_source):
        with pytest.raises(SalpipeError) as caught:
            check("hf_hub:me/mine")
        assert str(caught.value) == (
            "hf-hub:me/mine: not cached and cannot be downloaded (no network); check the name and the network, or copy "
            "the repository and use local-dir:FOLDER"
        )


def test_nothing_of_timm_reads_the_weights_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described(tmp_path / "saved")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_path", lambda *_: pytest.fail("read by timm"))
    assert load_source(f"local-dir:{tmp_path / 'saved'}").classes == ("cat", "dog")
