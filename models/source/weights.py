"""Files of weights: opened by content, read, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.files.file_kinds import SAFETENSORS, require_safetensors, weights_kind
from saliency_pipeline.models.files.pickles import Built, CodeError
from saliency_pipeline.models.files.torch_files import TorchFile, open_torch_file
from saliency_pipeline.models.files.views import UnreadableWeightsError, View
from saliency_pipeline.text import one_line, shown

# keys under which training scripts store weights in a checkpoint; averaged weights first, which are better
NESTINGS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "params_ema", "ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights"),
)
# prefixes of DistributedDataParallel and torch.compile
WRAPPERS = ("module.", "_orig_mod.")
RGB_PART = "[:, :3]"
"""After the name of a convolution of RGB and a map: the part of it that reads RGB."""
_LONGEST = 120
_MOST_LEVELS = 4
_MOST_ITEMS = 100
# torch's averaged models count their updates under this name, beside the weights
_COUNTER = "n_averaged"
_NO_TENSORS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantized",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "on the device 'meta', without values",
    "_rebuild_device_tensor_from_numpy": "of another kind of device",
    "_reconstruct": "an array of NumPy",
    "_frombuffer": "an array of NumPy",
}


class StoredTensor(Protocol):
    """A tensor in a file, which is read on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""

    @property
    def nbytes(self) -> int:
        """Number of bytes that are read for it."""

    def read(self) -> Tensor:
        """The tensor, on the CPU, in the file's dtype."""


State = Mapping[str, StoredTensor]


# ---- a file of weights ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Contents of a file of weights; no tensor is read yet.

    Attributes:
        path: the file.
        states: its state dicts, the preferred one first, by their path in the file, such as `state_dict_ema`; the
            empty string for a file that is a state dict.
        classes: number of other objects in the file, which were not built, by the name of their class.
    """

    path: Path
    states: dict[str, State]
    classes: dict[str, int]


def open_weights(path: Path) -> WeightsFile:
    """Open a file of weights of any extension, without executing anything in it.

    Safetensors files and those of `torch.save` are supported, the latter without unpickling: see `pickles`. State
    dicts may be nested up to three levels deep, also in lists and tuples; those of optimizers are ignored.

    Raises:
        SalpipeError: the file does not exist, is of another kind, damaged, needs code, or has no state dict.
    """
    if weights_kind(path) == SAFETENSORS:
        try:
            return WeightsFile(path, {"": open_safetensors(path)[0]}, {})
        except (SafetensorError, OSError, ValueError) as error:
            raise SalpipeError(
                f"{path}: not a readable .safetensors file ({one_line(error)}); save it again"
            ) from error
    try:
        file = open_torch_file(path)
        states = dict(_states(file))
    except (UnreadableWeightsError, OSError) as error:
        raise _unreadable(path, error) from error
    if not states:
        raise _without_state(path, file.root)
    ranks = {name: rank for rank, name in enumerate(NESTINGS)}
    ordered = sorted(states, key=lambda where: min(ranks.get(part, len(ranks)) for part in where.split("/")))
    return WeightsFile(path, {where: states[where] for where in ordered}, file.classes)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the preferred state dict of a file, without the prefixes of DistributedDataParallel and torch.compile.

    Returns:
        Name to tensor, on the CPU, in the file's own order and dtypes.

    Raises:
        SalpipeError: as `open_weights`; or the tensors are together larger than the file.
    """
    file = open_weights(path)
    state = next(iter(file.states.values()))
    while wrapper := next((w for w in WRAPPERS if all(key.startswith(w) for key in state)), None):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return read_state(path, state)


def read_state(path: Path, state: State) -> dict[str, Tensor]:
    """Read tensors of a file.

    Raises:
        SalpipeError: they are together larger than the file, as tensors that share memory may be, or unreadable.
    """
    try:
        # a tied tensor has several names
        if sum(value.nbytes for value in state.values()) > 2 * path.stat().st_size:
            raise UnreadableWeightsError("its tensors share memory and are larger than the file; save clones of them")
        return {name: value.read() for name, value in state.items()}
    except (UnreadableWeightsError, SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


@dataclass(frozen=True)
class _Safetensor:
    """A tensor of a safetensors file; the library has checked that it is complete."""

    file: Any
    name: str
    shape: tuple[int, ...]
    nbytes: int = 0  # no two tensors of such a file share bytes

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor


def open_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a safetensors file, unread, and its metadata.

    Raises:
        OSError: it cannot be read.
        ValueError, SafetensorError: it is not such a file, or damaged.
    """
    require_safetensors(path)
    file: Any = safe_open(path, framework="pt")
    state = {name: _Safetensor(file, name, tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118 - not a dict
    return state, file.metadata() or {}


def _states(file: TorchFile) -> Iterator[tuple[str, State]]:
    """The state dicts in a file of `torch.save`, each once, with their paths in it."""
    level, visited = [("", file.root)], set()
    for _ in range(_MOST_LEVELS):
        deeper = []
        for where, value in level:
            entries = _entries(value)
            if not entries or id(value) in visited:
                continue
            visited.add(id(value))
            tensors = {name: view for name, view in entries.items() if name != _COUNTER}
            named = not isinstance(value, list | tuple)
            if named and tensors and all(isinstance(view, View) for view in tensors.values()):
                yield where, {name: file.locate(view) for name, view in tensors.items()}
            else:
                prefix = f"{where}/" if where else ""
                deeper += [(prefix + key, inner) for key, inner in entries.items() if "optim" not in key.lower()]
        level = deeper


def _entries(value: Any) -> dict[str, Any] | None:
    """The entries of a mapping, or the items of a sequence by index; None for anything else."""
    if isinstance(value, list | tuple):
        # as scripts save [state_dict] and (state_dict, epoch); of several mappings none is preferred
        mappings = {str(place): item for place, item in enumerate(value[:_MOST_ITEMS]) if _entries(item)}
        return mappings if len(mappings) == 1 else None
    return value.entries if isinstance(value, Built) else value if isinstance(value, dict) else None


def _without_state(path: Path, root: Any) -> SalpipeError:
    """The error for a file without a state dict."""
    outer = _entries(root) or {}
    nested = [(key, inner) for value in outer.values() for key, inner in (_entries(value) or {}).items()]
    for name, value in (("", root), *outer.items(), *nested):
        if isinstance(value, Built) and not value.known:
            return _unreadable(path, CodeError(value.name))
        if isinstance(value, Built) and (kind := _NO_TENSORS.get(value.name.rpartition(".")[2])):
            part = short(name) or "its content"
            return SalpipeError(f"{path}: {part} is {kind}; save dense tensors of floating-point values")
    return SalpipeError(f"{path}: holds no state dict (names and tensors); save the network's state_dict() there")


def _unreadable(path: Path, error: Exception) -> SalpipeError:
    if isinstance(error, CodeError):
        return SalpipeError(
            f"{path}: refused, it would run code ({short(str(error))}); save only the network's state_dict(), "
            "best as .safetensors"
        )
    reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
    return SalpipeError(f"{path}: {reason}" if ";" in reason else f"{path}: {reason}; save it again")


def short(name: str) -> str:
    """A name in a file, printable and shortened for a message."""
    return shown(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")


# ---- identity ---------------------------------------------------------------------------------------------------


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of a network's state dict: sorted names, each with dtype, shape and little-endian bytes.

    Independent of the file, the library and the order of names.
    """
    digest = hashlib.sha256()
    state = module.state_dict()
    for key in sorted(state):
        value = state[key]
        if not isinstance(value, Tensor):  # the extra state of a user's module
            digest.update(f"{key}\0{value!r}\0".encode())
            continue
        value = value.detach().cpu().contiguous()
        digest.update(f"{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_digests(module: nn.Module) -> dict[str, str]:
    """Shape and SHA-256 of every tensor of a network, to compare the initial weights of two networks by name.

    Returns:
        Name to dtype, shape and the first 16 hexadecimal digits of the SHA-256 of the little-endian bytes, such as
        `float32 32x3x3x3 5d41402abc4b2a76`. A convolution of four input channels, RGB and a map, has a second entry
        `NAME[:, :3]` for the RGB part, which it shares with a convolution of three.
    """
    digests = {}
    for name, value in module.state_dict().items():
        digests[name] = _digest(value)
        if value.ndim == 4 and value.shape[1] == 4:
            digests[f"{name}{RGB_PART}"] = _digest(value[:, :3])
    return digests


def _digest(value: Tensor) -> str:
    value = value.detach().cpu().contiguous()
    content = hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy().data).hexdigest()[:16]
    return f"{str(value.dtype).removeprefix('torch.')} {'x'.join(map(str, value.shape)) or 'scalar'} {content}"
