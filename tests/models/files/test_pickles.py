"""Pickles read as data: plain data is read, nothing is called, and memory is proportional to the length."""

import argparse
import collections
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import subprocess
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saliency_pipeline.models.files import pickles
from saliency_pipeline.models.files.pickles import Built, CodeError, read_pickle
from saliency_pipeline.models.files.views import UnreadableWeightsError, View


def read(obj: object, protocol: int = 2) -> Any:
    """The outermost object of what `torch.save` pickles of one."""
    buffer = io.BytesIO()
    torch.save(obj, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        return read_pickle(io.BytesIO(archive.read("archive/data.pkl"))).root


DATA = {
    "scalars of NumPy": [np.float64(71.2), np.float32(1), np.int64(1), np.bool_(True), np.datetime64("2020")],
    "arrays of NumPy": [np.ones(3), np.array(["x"]), np.array([1, "x"], object), np.dtype("i4")],
    "options": [argparse.Namespace(lr=0.1), types.SimpleNamespace(a=1), functools.partial(print, 1)],
    "collections": [collections.OrderedDict(a=1), collections.Counter("a"), collections.defaultdict(list), {1}, {1: 2}],
    "paths": [pathlib.Path("x"), pathlib.PureWindowsPath("c:/")],
    "times": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1)],
    "of PyTorch": [torch.device("cuda:0"), torch.Size([1]), torch.float16, torch.get_rng_state()],
    "builtins": [1j, range(3), b"x", bytearray(b"x"), frozenset([1]), slice(1), 2**70, -1.5, None, True, "é"],
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", DATA)
def test_plain_data_stands_beside_the_weights(kind: str, protocol: int) -> None:
    root = read({"weights": torch.ones(2, 3), "beside": DATA[kind]}, protocol)
    assert root["weights"].shape == (2, 3)
    assert len(root["beside"]) == len(DATA[kind])


def test_tensors_are_views_of_their_storage() -> None:
    whole = torch.arange(12.0)
    root = read({"a": whole.view(3, 4), "b": whole[2:6:2], "c": torch.nn.Parameter(whole), "e": torch.ones(0, 5)})
    a, b = root["a"], root["b"]
    assert (a.shape, a.strides, a.offset, a.extent) == ((3, 4), (4, 1), 0, 12)
    assert (b.shape, b.strides, b.offset, b.extent) == ((2,), (2,), 2, 3)
    assert a.storage is b.storage is root["c"].storage
    assert root["e"].extent == 0
    assert read({"f": torch.ones(2).to(torch.float8_e4m3fn)})["f"].dtype == torch.float8_e4m3fn


class Settings:
    """An object of an unknown class."""

    def __init__(self) -> None:
        self.rate = 1

    def __setstate__(self, state: object) -> None:
        raise AssertionError("was built")


class Mapping(dict[str, Any]):
    """As Lightning's hyper-parameters are."""


def test_objects_of_other_classes_are_not_built() -> None:
    settings = read({"a": Settings()})["a"]
    assert isinstance(settings, Built)
    assert (settings.name, settings.known) == (f"{__name__}.Settings", False)
    assert read(Mapping(a=1)).entries == {"a": 1}


class Kind(enum.Enum):
    A = 1


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, "touch ran"), "posix.system"),
        (Calls(subprocess.Popen, ["touch", "ran"]), "subprocess.Popen"),
        (Calls(eval, "open('ran', 'w')"), "builtins.eval"),
        (Calls(getattr, "os", "system"), "builtins.getattr"),
        (Calls(torch.load, "x"), "torch.serialization.load"),
        (Kind.A, f"{__name__}.Kind"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_and_not_made(
    value: object, name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CodeError, match=name):
        read({"state_dict": {}, "optimizer": [value]}, protocol)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cposix\nsystem\n(X\x09\x00\x00\x00touch ranotR.",
        b"(X\x09\x00\x00\x00touch raniposix\nsystem\n.",
        b"(cposix\nsystem\nX\x09\x00\x00\x00touch rano.",
    ],
)
def test_no_operation_calls(code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableWeightsError):
        read_pickle(io.BytesIO(b"\x80\x02" + code))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**9, 96),
        torch.zeros(1).expand(3),
        torch.zeros(100).as_strided((90, 10), (1, 1)),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UnreadableWeightsError, match="larger than what is stored of it"):
        read({"a": tensor})


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b".",
        b"}",
        b"0.",
        b"R.",
        b"h\x05.",
        b"}K\x01K\x02s",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x01\x85K\x01\x85tR.",
        b"K\x01Q.",
        b"\x82\x01.",
        # a function of a function of a function …
        b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00(NNNt" + b"q\x010h\x00(h\x00Nh\x01Nt" * 5000 + b"R.",
    ],
)
def test_damage_is_one_error(code: bytes) -> None:
    with pytest.raises(UnreadableWeightsError):
        read_pickle(io.BytesIO(b"\x80\x02" + code))


def test_a_long_pickle_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 1000)
    with pytest.raises(UnreadableWeightsError, match="more than 1,000 operations"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"}" * 2000 + b"."))


@pytest.mark.parametrize("code", [b"})" + b"2\x86" * 200 + b"Ns.", b")" + b"\x85" * 100_000 + b".", b"]" * 9 + b"aaa."])
def test_neither_depth_nor_sharing_costs_more_than_the_pickle_is_long(code: bytes) -> None:
    read_pickle(io.BytesIO(b"\x80\x02" + code))  # hashing or printing any of this would not end


def test_dictionaries_of_python_2_keep_their_items() -> None:
    code = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x05ee\x85R."
    assert read_pickle(io.BytesIO(code)).root.entries == {"a": 5}


def test_what_pickle_writes_is_what_is_read() -> None:
    value = {"a": [1, (2.5, "x"), {"b": None}], "c": b"raw"}
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))).root == value


def test_views_are_not_confused_with_arrays() -> None:
    root = read({"a": torch.ones(1), "b": np.ones(1)})
    assert isinstance(root["a"], View)
    assert isinstance(root["b"], Built)
