"""Weights of source models: where pretrained files lie, how a file is read without running it, matched and hashed.

What the networks are, and which names they go by, is in `source` and `registry`.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import sys
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
PICKLES = (".pth", ".pt", ".bin")
# Where training scripts put the weights inside a checkpoint; averaged weights first, they are the better ones.
NESTINGS = ("state_dict_ema", "model_ema", "state_dict", "model")
# What DistributedDataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")
CONNECT_SECONDS = 5.0


# ---- pretrained files -------------------------------------------------------------------------------------------


def hub_cached(repo: str) -> Path | None:
    """The weights of a Hugging Face repository that are already on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache

    for file in HUB_FILES:
        path = try_to_load_from_cache(repo, file)
        if isinstance(path, str):
            return Path(path)
    return None


def url_cached(url: str) -> Path | None:
    """The file that `torch.hub` keeps for a URL if it is already on this machine, or None."""
    path = _hub_dir_file(url)
    return path if path.is_file() else None


def hub_file(name: str, repo: str) -> Path:
    """The weights of a Hugging Face repository, from the cache or else downloaded into it.

    A file in the cache is taken without asking the network. Otherwise one short request finds out whether the
    repository can be reached at all: the library's own download retries for most of a minute.

    Args:
        name: The model's name, for the error message.
        repo: The repository, such as `timm/resnet50.a1_in1k`.

    Raises:
        SalpipeError: The weights are not cached and cannot be downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    if cached := hub_cached(repo):
        return cached
    try:
        for file in HUB_FILES:
            try:
                huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, file), timeout=CONNECT_SECONDS)
            except EntryNotFoundError:
                continue
            return Path(huggingface_hub.hf_hub_download(repo, file))
    except Exception as error:  # the HTTP library below, and with it the error, differs between versions
        raise _unavailable(name, error) from error
    raise _unavailable(name, f"{repo} holds neither {' nor '.join(HUB_FILES)}")


def url_file(name: str, url: str) -> Path:
    """The weights at a URL, from `torch.hub`'s cache or else downloaded into it.

    Args:
        name: The model's name, for the error message.
        url: An address from timm's or torchvision's own tables.

    Raises:
        SalpipeError: The weights are not cached and cannot be downloaded.
    """
    if cached := url_cached(url):
        return cached
    path = _hub_dir_file(url)
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = digest.group(1) if digest else None
        torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise _unavailable(name, error) from error
    return path


def _hub_dir_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _unavailable(name: str, reason: object) -> SalpipeError:
    return SalpipeError(
        f"{name}: its weights are not cached and cannot be downloaded ({one_line(reason)}); "
        "use the embedded 'efficientnet_lite0' or --weights PATH"
    )


# ---- a file of weights ------------------------------------------------------------------------------------------


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a file of weights without running anything it holds.

    A `.safetensors` file holds nothing but tensors. A `.pth`, `.pt` or `.bin` file is unpickled with
    `weights_only=True`: one that needs code is refused, not run. Weights nested under `state_dict`, `model` or
    their averaged variants (`state_dict_ema`, `model_ema`, which are preferred) are found, and the prefixes of
    DistributedDataParallel and torch.compile taken off.

    Args:
        path: The file.

    Returns:
        Name to tensor, on the CPU, in the file's own order and dtypes.

    Raises:
        SalpipeError: No such file, a kind that is not read, damaged, in need of code, or without tensors.
    """
    if not path.is_file():
        raise SalpipeError(f"{path}: no such file; --weights takes 'default', 'none' or a file of weights")
    if path.suffix.lower() == ".safetensors":
        loaded = _read_safetensors(path)
    elif path.suffix.lower() in PICKLES:
        loaded = _read_pickle(path)
    else:
        raise SalpipeError(f"{path}: not a kind of weights that is read; use .safetensors, {', '.join(PICKLES)}")
    if isinstance(loaded, dict):
        nested = next((loaded[key] for key in NESTINGS if isinstance(loaded.get(key), dict)), loaded)
        # torch's averaged models count their updates under this name, beside the weights
        state = {key: value for key, value in nested.items() if key != "n_averaged"}
        if state and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
            return _unwrapped(state)
    raise SalpipeError(f"{path}: holds no state dict (names and tensors); save the network's state_dict() there")


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SalpipeError(f"{path}: not a readable .safetensors file ({one_line(error)}); save it again") from error


def _read_pickle(path: Path) -> object:
    try:
        # training scripts keep their options beside the weights; a Namespace is built without running code
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's hints to programmers; what matters becomes an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise SalpipeError(f"{path}: not a weights-only pickle; save the network's state_dict() there") from error
        raise SalpipeError(
            f"{path}: refused, it would run code ({wanted.group(1)}); save only the network's state_dict(), "
            "best as .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise SalpipeError(f"{path}: not a readable file of weights ({one_line(error)}); save it again") from error


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while wrapper := next((w for w in WRAPPERS if all(key.startswith(w) for key in state)), None):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


# ---- matching a file and a network ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mismatch:
    """How a file of weights differs from a network: names only one of them has, and shapes (network's, file's)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        shapes = [f"{key} {list(theirs)} instead of {list(ours)}" for key, (ours, theirs) in self.shapes.items()]
        kinds = (("wrong shape", shapes), ("missing", self.missing), ("unexpected", self.unexpected))
        return "; ".join(f"{len(keys)} {kind}: {_first(keys)}" for kind, keys in kinds if keys)

    def class_count(self, classes: int) -> int | None:
        """The file's number of classes if that is all in which it differs from a network of `classes`, else None."""
        if self.missing or self.unexpected or not self.shapes:
            return None
        counts = {
            theirs[0] if ours and theirs and ours[0] == classes and ours[1:] == theirs[1:] else None
            for ours, theirs in self.shapes.values()
        }
        return counts.pop() if len(counts) == 1 else None


def compare(module: nn.Module, state: Mapping[str, Tensor]) -> Mismatch:
    """Compare a network's state dict with a file's, by name and shape.

    BatchNorm's `num_batches_tracked` may be missing: older files lack it and nothing in eval mode reads it.
    """
    own = module.state_dict()
    return Mismatch(
        missing=tuple(key for key in own if key not in state and not key.endswith(".num_batches_tracked")),
        unexpected=tuple(key for key in state if key not in own),
        shapes={
            key: (tuple(value.shape), tuple(state[key].shape))
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        },
    )


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a state dict that `compare` found equal in names and shapes into a network."""
    own = module.state_dict()
    # updated in place, not replaced: modules read the version of their layout from the dict's metadata
    own.update(state)
    module.load_state_dict(own, strict=True)


def _first(keys: tuple[str, ...] | list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", …" if len(keys) > most else "")


# ---- identity ---------------------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over a network's state dict: sorted names, each with dtype, shape and little-endian bytes.

    The same weights give the same value whatever file or library they came from, in any order of names.
    """
    digest = hashlib.sha256()
    state = module.state_dict()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def one_line(reason: object, most: int = 160) -> str:
    """An exception or text as one line of at most `most` characters; an empty exception gives its type's name."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= most else text[: most - 1] + "…"
