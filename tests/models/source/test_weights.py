"""Files of weights: both kinds load, nothing in them is executed, and mismatches are named."""

import argparse
import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.source.weights import read_state_dict, state_sha256, tensor_digests

TINY = "test_resnet.r160_in1k"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def fitted() -> State:
    """Weights that no initialization gives."""
    generator = torch.Generator().manual_seed(3)
    state = load_source(TINY, "none").module.state_dict()
    return {
        key: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value.clone()
        for key, value in state.items()
    }


def refused(name: str, path: Path) -> str:
    with pytest.raises(SalpipeError) as caught:
        load_source(name, str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def save(state: object, path: Path) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".PTH"])
def test_a_file_gives_its_weights_and_its_own_hash(tmp_path: Path, fitted: State, suffix: str) -> None:
    path = save(fitted, tmp_path / f"mine{suffix}")
    source = load_source(TINY, str(path))
    assert source.weights == f"mine{suffix}"
    assert source.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(value, fitted[key]) for key, value in source.module.state_dict().items())
    assert source.wnids[0] == "n01440764"


@pytest.mark.parametrize(
    "nest",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
        lambda s: {"model_ema": s, "model": {key: value * 0 for key, value in s.items()}},
        lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}},
        lambda s: {f"_orig_mod.{key}": value for key, value in s.items()},
        lambda s: {f"module._orig_mod.{key}": value for key, value in s.items()},
        lambda s: {"model_ema": {"n_averaged": torch.tensor(9)} | {f"module.{key}": value for key, value in s.items()}},
        lambda s: OrderedDict((key, nn.Parameter(v, False)) for key, v in s.items() if "num_batches" not in key),
        lambda s: {key: value.double() if value.is_floating_point() else value for key, value in s.items()},
    ],
)
def test_weights_are_found_where_training_scripts_put_them(
    tmp_path: Path, fitted: State, nest: Callable[[State], object]
) -> None:
    source = load_source(TINY, str(save(nest(fitted), tmp_path / "checkpoint.pth")))
    assert all(torch.equal(value, fitted[key]) for key, value in source.module.named_parameters())
    assert {value.dtype for value in source.module.parameters()} == {torch.float32}


def test_half_precision_files_become_float32(tmp_path: Path, fitted: State) -> None:
    halves = {key: value.bfloat16() if value.is_floating_point() else value for key, value in fitted.items()}
    source = load_source(TINY, str(save(halves, tmp_path / "half.safetensors")))
    assert torch.equal(source.module.state_dict()["fc.weight"], halves["fc.weight"].float())


@pytest.mark.parametrize("name", [TINY, "torchvision/squeezenet1_1", "test_vit.r160_in1k"])
def test_another_number_of_classes_rebuilds_the_head(tmp_path: Path, name: str) -> None:
    state = load_source(name, "none").module.state_dict()
    state = {key: value[:7].clone() if value.shape[:1] == (1000,) else value for key, value in state.items()}
    source = load_source(name, str(save(state, tmp_path / "seven.pth")))
    assert source.classes == tuple(f"class {i}" for i in range(7))
    assert source.wnids == ()
    assert all(torch.equal(value, state[key]) for key, value in source.module.state_dict().items())


def test_a_feature_extractor_with_a_classifier_in_its_file_classifies(tmp_path: Path) -> None:
    import timm

    name = "vit_tiny_patch16_dinov3_qkvb"
    state = timm.create_model(name, num_classes=4).state_dict()
    source = load_source(name, str(save(state, tmp_path / "tuned.safetensors")))
    assert source.classes == ("class 0", "class 1", "class 2", "class 3")
    bare = {key: value for key, value in state.items() if not key.startswith("head.")}
    with pytest.raises(SalpipeError, match="gives features, not class scores"):
        load_source(name, str(save(bare, tmp_path / "bare.safetensors")))


def test_what_does_not_fit_is_named_and_counted(tmp_path: Path, fitted: State) -> None:
    state = dict(fitted)
    del state["bn1.weight"], state["fc.bias"]
    state["extra.weight"] = torch.ones(2)
    state["conv1.0.weight"] = torch.ones(5, 3, 3, 3)
    message = refused(TINY, save(state, tmp_path / "odd.pth"))
    assert "1 wrong shape: conv1.0.weight [5, 3, 3, 3] instead of [" in message
    assert "2 missing: bn1.weight, fc.bias" in message
    assert "1 unexpected: extra.weight" in message


@pytest.mark.parametrize("name", [TINY, "dla46_c", "test_vit.r160_in1k", "test_convnext.r160_in1k"])
def test_nothing_loads_in_part_and_long_lists_are_cut(tmp_path: Path, name: str) -> None:
    message = refused(name, save({"a": torch.ones(1)}, tmp_path / "other.safetensors"))
    assert re.search(r"\d\d missing: [^ ]+, [^ ]+, [^ ]+, …; 1 unexpected: a;", message)


def test_a_part_of_the_classifier_is_no_other_class_count(tmp_path: Path, fitted: State) -> None:
    state = dict(fitted, **{"fc.weight": fitted["fc.weight"][:7].clone()})
    assert "2 wrong shape" not in refused(TINY, save(state, tmp_path / "a.pth"))
    state = dict(fitted, **{"fc.weight": torch.ones(7, 3), "fc.bias": torch.ones(7)})
    assert "2 wrong shape: fc.weight [7, 3] instead of" in refused(TINY, save(state, tmp_path / "b.pth"))


@pytest.mark.parametrize("name", ["torchvision/densenet121", "densenet121"])
def test_densenets_published_names_load(tmp_path: Path, name: str) -> None:
    untrained = load_source(name, "none").module
    dotted = {
        re.sub(r"(layer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in untrained.state_dict().items()
        if "num_batches" not in key
    }
    assert any(".norm.1." in key for key in dotted)
    source = load_source(name, str(save(dotted, tmp_path / "published.pth")))
    assert state_sha256(source.module) == state_sha256(untrained)
    assert "state_dict" not in getattr(source.module, "pretrained_cfg", {})


def test_auxiliary_classifiers_in_a_file_are_left_out(tmp_path: Path) -> None:
    untrained = load_source("torchvision/googlenet", "none").module
    path = save(untrained.state_dict() | {"aux1.fc1.weight": torch.ones(2, 2)}, tmp_path / "published.pth")
    assert state_sha256(load_source("torchvision/googlenet", str(path)).module) == state_sha256(untrained)


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, fitted: State, zipped: bool) -> None:
    path, trace = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save(fitted | {"x": Malicious(trace)}, path, _use_new_zipfile_serialization=zipped)
    assert "refused, it would run code (posix.system)" in refused(TINY, path)
    assert not trace.exists()


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "network.pt")
    message = refused(TINY, tmp_path / "network.pt")
    assert "refused, it would run code (torch.nn.modules.linear.Linear); save only" in message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: bytes(range(256)) * 40])
def test_damaged_files_are_named(tmp_path: Path, fitted: State, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    path = save(fitted, tmp_path / f"damaged{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    refused(TINY, path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], {}, {"state_dict": {"a": 1}}, torch.ones(3)])
def test_a_file_without_a_state_dict_is_named(tmp_path: Path, content: object) -> None:
    assert "holds no state dict" in refused(TINY, save(content, tmp_path / "none.pth"))


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_bytes(b"x")
    assert "use .safetensors, .pth, .pt, .bin" in refused(TINY, tmp_path / "weights.npz")
    assert "no such file; --weights takes 'default', 'none'" in refused(TINY, tmp_path / "absent.pth")
    assert "a folder; give the file" in refused(TINY, tmp_path)
    with (tmp_path / "plain.pth").open("wb") as file:
        pickle.dump({"a": 1}, file)
    assert "not a weights-only pickle" in refused(TINY, tmp_path / "plain.pth")


def test_order_of_names_does_not_change_what_is_read(tmp_path: Path, fitted: State) -> None:
    backwards = dict(reversed(fitted.items()))
    read = read_state_dict(save(backwards, tmp_path / "b.pth"))
    assert list(read) == list(backwards)
    a, b = (load_source(TINY, str(save(s, tmp_path / "s.pth"))).module for s in (fitted, backwards))
    assert state_sha256(a) == state_sha256(b)


def test_the_hash_sees_one_bit_a_name_a_type_and_a_shape() -> None:
    def digest(name: str, value: Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, value)
        return state_sha256(module)

    value = torch.zeros(2, 3)
    changed = value.clone()
    changed[1, 2] = torch.finfo(torch.float32).smallest_normal
    variants = [value, changed, value.reshape(3, 2), value.to(torch.int32)]
    digests = [digest("a", each) for each in variants] + [digest("b", value)]
    assert len(set(digests)) == 5
    assert digest("a", value.t().contiguous().t()) == digest("a", value)
    assert len(digest("scalar", torch.tensor(True))) == 64


def test_digests_by_tensor_show_shapes_and_the_rgb_part_of_a_convolution_of_four_channels() -> None:
    three, four = torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.Conv2d(4, 2, 1)
    with torch.no_grad():
        four.weight[:, :3] = three.weight
    rgb, both = tensor_digests(three), tensor_digests(four)
    assert list(rgb) == ["weight"]
    assert list(both) == ["weight", "weight[:, :3]", "bias"]
    assert rgb["weight"].startswith("float32 2x3x1x1 ")
    assert both["weight"].startswith("float32 2x4x1x1 ")
    assert rgb["weight"] == both["weight[:, :3]"]
    content = hashlib.sha256(three.weight.detach().numpy().tobytes()).hexdigest()
    assert rgb["weight"].rpartition(" ")[2] == content[:16]
    with torch.no_grad():
        three.weight[0, 0] += 1
    assert tensor_digests(three) != rgb
    assert tensor_digests(torch.nn.BatchNorm2d(1))["num_batches_tracked"].startswith("int64 scalar ")
