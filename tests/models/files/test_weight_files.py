"""Files of weights in practice: recognized by content, with any name or prefix, in bounded memory."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.files.file_kinds import MAX_HEADER_BYTES
from saliency_pipeline.models.source import build
from saliency_pipeline.models.source.build import from_file, skeleton
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.source.weights import open_weights

TINY = "test_resnet"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def fitted() -> State:
    return build.untrained(TINY, *find_source(TINY)).state_dict()


def load(path: Path, name: str = TINY) -> tuple[State, str]:
    """The weights that a network takes from a file, and all notes."""
    module, notes = from_file(name, *find_source(name), path)
    return module.state_dict(), "; ".join(notes)


def refused(path: Path, name: str = TINY) -> str:
    with pytest.raises(SalpipeError) as caught:
        from_file(name, *find_source(name), path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.ckpt", "weights.model", "none", "wrong.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_content_decides_not_the_ending(tmp_path: Path, fitted: State, name: str, zipped: bool) -> None:
    checkpoint = {"state_dict": fitted, "epoch": 3, "best_acc1": np.float64(71.2), "arch": "resnet18"}
    torch.save(checkpoint, tmp_path / name, _use_new_zipfile_serialization=zipped)
    state, notes = load(tmp_path / name)
    assert same(state, fitted)
    assert notes == ""


def test_safetensors_are_known_under_any_name(tmp_path: Path, fitted: State) -> None:
    save_file(fitted, tmp_path / "weights.bin")
    assert same(load(tmp_path / "weights.bin")[0], fitted)


PREFIXES = ["model.", "net.", "backbone.", "encoder.", "module.", "module.model.", "_orig_mod.", "a.b.c."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_without_which_everything_fits_is_removed_and_noted(
    tmp_path: Path, fitted: State, prefix: str
) -> None:
    torch.save({"state_dict": under(prefix, fitted)}, tmp_path / "last.ckpt")
    state, notes = load(tmp_path / "last.ckpt")
    assert same(state, fitted)
    assert notes == f"last.ckpt: prefix '{prefix}' removed from the names of {len(fitted)} tensors"


def test_what_has_another_prefix_is_counted(tmp_path: Path, fitted: State) -> None:
    torch.save(under("model.", fitted) | {"criterion.weight": torch.ones(3)}, tmp_path / "w.pth")
    state, notes = load(tmp_path / "w.pth")
    assert same(state, fitted)
    assert notes.endswith("w.pth: ignored 1 tensor of other names (criterion.weight)")


def test_averaged_weights_are_used_and_noted(tmp_path: Path, fitted: State) -> None:
    zeros = {name: value * 0 for name, value in fitted.items()}
    torch.save({"model": fitted, "model_ema": zeros}, tmp_path / "both.pth")
    state, notes = load(tmp_path / "both.pth")
    assert same(state, zeros)
    assert notes == "both.pth: weights taken from 'model_ema'; it also holds model"
    torch.save({"state_dict": under("model.", fitted) | under("ema_model.", zeros)}, tmp_path / "last.ckpt")
    state, notes = load(tmp_path / "last.ckpt")
    assert same(state, zeros)
    assert "those under 'model.' fit as well and were not used" in notes


@pytest.mark.parametrize(
    "nest",
    [
        lambda s: {"discriminator": {"a": torch.ones(2)}, "generator": s},
        lambda s: {"checkpoint": {"my_state": s}},
        lambda s: {"model": s, "optimizer": {"state": {"a": torch.ones(2)}}},
        lambda s: {"ema_state_dict": s, "loss": {"a": torch.ones(2)}},
    ],
)
def test_the_state_dict_that_fits_is_found(tmp_path: Path, fitted: State, nest: Callable[[State], object]) -> None:
    torch.save(nest(fitted), tmp_path / "w.pth")
    assert same(load(tmp_path / "w.pth")[0], fitted)


class Options:
    """Options of a training script, which is not here."""

    rate = 1


def test_objects_beside_the_weights_are_counted(tmp_path: Path, fitted: State) -> None:
    torch.save({"state_dict": fitted, "options": Options()}, tmp_path / "w.pth")
    state, notes = load(tmp_path / "w.pth")
    assert same(state, fitted)
    assert notes == f"w.pth: 1 object beside the weights not read ({__name__}.Options)"


def test_strides_and_shared_storages_come_back(tmp_path: Path, fitted: State) -> None:
    sideways = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in fitted.items()}
    half = torch.stack([fitted["fc.weight"], fitted["fc.weight"]])[1]  # a part of a larger storage
    torch.save(sideways | {"fc.weight": half}, tmp_path / "w.pth")
    assert same(load(tmp_path / "w.pth")[0], fitted)


def test_a_head_that_does_not_fit_is_answered(tmp_path: Path, fitted: State) -> None:
    body = {name: value for name, value in fitted.items() if not name.startswith("fc.")}
    torch.save(body, tmp_path / "body.pth")
    assert "2 missing: fc.weight, fc.bias; all but the classifier (fc) is there" in refused(tmp_path / "body.pth")
    torch.save(body | {"fc.weight": torch.ones(0, 96), "fc.bias": torch.ones(0)}, tmp_path / "empty.pth")
    assert "fc.weight [0, 96] instead of [1000, 96]" in refused(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, of Keras or MATLAB; convert it to PyTorch"),
        (bytes(64) + bytes.fromhex("57fb808b247547db"), "a TensorFlow checkpoint; convert it to PyTorch"),
        (b'model_checkpoint_path: "m"', "a TensorFlow checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS instead of the file"),
        (b"<!DOCTYPE html>", "a web page or XML instead of weights; download the file itself"),
        (b"\x1f\x8b" + bytes(64), "compressed with gzip; unpack it"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (b"# Read me\n" * 9, "not a supported kind of weights; use .safetensors"),
        (struct.pack("<Q", 1 << 40) + b"{" + bytes(64), "not a readable .safetensors file (cut short)"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert message in refused(tmp_path / "w.pth")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a device or pipe" in refused(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    assert "a device or pipe" in refused(tmp_path / "zeros")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    assert "a TorchScript program; load it with torch.jit.load" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.to_sparse(), "fc.weight is sparse; save dense tensors"),
        (lambda v: v.to("meta"), "fc.weight is on the device 'meta', without values"),
        (lambda v: v.numpy(), "fc.weight is an array of NumPy"),
    ],
)
def test_what_is_no_dense_tensor_is_named(
    tmp_path: Path, fitted: State, change: Callable[[Tensor], object], message: str
) -> None:
    torch.save(fitted | {"fc.weight": change(fitted["fc.weight"])}, tmp_path / "w.pth")
    assert message in refused(tmp_path / "w.pth")


# ---- small files that ask for much memory -----------------------------------------------------------------------


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes memory fails the test."""
    network = build._network

    def on_meta(library: str, bare: str, classes: int | None = None) -> torch.nn.Module:
        module = network(library, bare, classes)
        taken = sum(parameter.nbytes for parameter in module.parameters() if not parameter.is_meta)
        assert taken < 10_000_000, "memory was allocated"
        return module

    monkeypatch.setattr(build, "_network", on_meta)


def safetensors(path: Path, header: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


EMPTY = b'{"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
HUGE = EMPTY.replace(b"[0]", b"[1000000000000000, 0]").replace(b'"x"', b'"fc.weight"')


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("name", ["vit_giant_patch14_224", "torchvision/regnet_y_128gf", TINY])
@pytest.mark.parametrize("header", [EMPTY, HUGE])
def test_shapes_are_compared_before_memory_is_taken(tmp_path: Path, name: str, header: bytes) -> None:
    assert "missing" in refused(safetensors(tmp_path / "w", header), name)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("count", [1, 10**7])
def test_tensors_that_share_memory_are_no_larger_than_the_file(tmp_path: Path, fitted: State, count: int) -> None:
    if count == 1:
        shared = torch.zeros(max(value.numel() for value in fitted.values()))
        state = {name: shared[: value.numel()].view(value.shape) for name, value in fitted.items()}
        message = "its tensors share memory and are larger than the file"
    else:
        zero = torch.zeros(1)
        state = fitted | {"fc.weight": zero.expand(count, 96), "fc.bias": zero.expand(count)}
        message = "is larger than what is stored of it"
    torch.save(state, tmp_path / "w.pth")
    assert message in refused(tmp_path / "w.pth")


def test_compressed_archives_are_refused(tmp_path: Path, fitted: State) -> None:
    torch.save(fitted, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as archive, zipfile.ZipFile(tmp_path / "d.pth", "w", 8) as deflated:
        for entry in archive.infolist():
            deflated.writestr(entry.filename, archive.read(entry))
    assert "its zip archive is compressed" in refused(tmp_path / "d.pth")


def test_an_archive_whose_parts_overlap_is_refused(tmp_path: Path, fitted: State) -> None:
    torch.save(fitted, tmp_path / "w.pth")
    data = bytearray((tmp_path / "w.pth").read_bytes())
    entry = data.find(b"PK\1\2")
    while entry >= 0:
        data[entry + 20 : entry + 28] = struct.pack("<II", len(data) // 2, len(data) // 2)
        entry = data.find(b"PK\1\2", entry + 1)
    (tmp_path / "w.pth").write_bytes(data)
    assert "its zip archive is damaged" in refused(tmp_path / "w.pth")


def test_long_headers_and_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with safetensors(tmp_path / "w", b"{").open("r+b") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 10)
    assert "its header is larger than" in refused(tmp_path / "w")
    monkeypatch.setattr("saliency_pipeline.models.files.torch_files.MAX_DIRECTORY_BYTES", 1000)
    torch.save({str(number): torch.ones(1) for number in range(50)}, tmp_path / "w.pth")
    assert "a directory of more than 1,000 bytes" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_every_cut_and_flipped_bit_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": torch.arange(4.0), "b": np.float64(1)}, tmp_path / "w", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "w").read_bytes()
    for place in range(0, len(data), 7):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]):
            (tmp_path / "w").write_bytes(changed)
            try:
                for state in open_weights(tmp_path / "w").states.values():
                    for tensor in state.values():
                        tensor.read()
            except SalpipeError:
                continue


def test_a_skeleton_has_the_names_and_shapes_of_the_network() -> None:
    for name in ("test_vit", "test_convnext", "torchvision/shufflenet_v2_x0_5", "vit_tiny_r_s16_p8_224"):
        library, bare = find_source(name)
        bones, network = skeleton(library, bare, 5), build.untrained_with(library, bare, 5)
        assert sum(parameter.nbytes for parameter in bones.parameters() if not parameter.is_meta) < 10_000
        assert {k: v.shape for k, v in bones.state_dict().items()} == {
            k: v.shape for k, v in network.state_dict().items()
        }
