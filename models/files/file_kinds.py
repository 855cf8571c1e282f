"""Kind of a file of weights, by its first bytes; quick to import, so that a wrong file is reported at once."""

from __future__ import annotations

import os
from pathlib import Path

from saliency_pipeline.documents import NotRegularError, open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.signatures import mistaken

SAFETENSORS, TORCH = "safetensors", "torch"
MAX_HEADER_BYTES = 16 << 20
"""Size limit of the header of a safetensors file; that of a ViT-7B has 60 KB."""
_HEAD = 512
_NEWEST_PICKLE = 5
_TENSORFLOW_INDEX = bytes.fromhex("57fb808b247547db")
_USE = "use .safetensors, .pth, .pt, .bin"
# first bytes of files passed by mistake, their kind, and the remedy
_OTHERS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, of Keras or MATLAB", f"convert it to PyTorch and {_USE}"),
    (b"model_checkpoint_path", "a TensorFlow checkpoint", f"convert it to PyTorch and {_USE}"),
    (b"GGUF", "a GGUF file", _USE),
    (b"\x93NUMPY", "an array of NumPy", _USE),
    (b"PK\5\6", "an empty zip archive", "save it again"),
    (b"{", "text, perhaps the index of several files of weights", f"join these and {_USE}"),
)


def weights_kind(path: Path) -> str:
    """The kind of a file of weights: `SAFETENSORS`, or `TORCH` for a file of `torch.save`.

    Raises:
        SalpipeError: the file does not exist or is of another kind.
    """
    try:
        head, tail, size = _ends(path)
        safetensors = _is_safetensors(head, size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SalpipeError(f"{path}: no such file; --weights takes 'default', 'none' or a file of weights") from error
    except IsADirectoryError as error:
        raise SalpipeError(f"{path}: a folder; give the file of weights in it") from error
    except OSError as error:
        raise SalpipeError(f"{path}: cannot be read ({error.strerror}); give a file of weights") from error
    except ValueError as error:
        raise SalpipeError(f"{path}: {error}; give a file of weights, or save it again") from error
    if safetensors:
        return SAFETENSORS
    if head.startswith(b"PK\3\4") or (head[:1] == b"\x80" and head[1] <= _NEWEST_PICKLE):
        return TORCH
    for magic, kind, remedy in _OTHERS:
        if head.startswith(magic):
            raise SalpipeError(f"{path}: {kind}; {remedy}")
    if mistake := mistaken(head, "weights"):
        raise SalpipeError(f"{path}: {mistake}")
    if head[257:262] == b"ustar":
        raise SalpipeError(
            f"{path}: a tar archive, as PyTorch wrote before version 0.2; unpack it, or load it there and save it again"
        )
    if tail == _TENSORFLOW_INDEX:
        raise SalpipeError(f"{path}: a TensorFlow checkpoint; convert it to PyTorch and {_USE}")
    raise SalpipeError(f"{path}: not a supported kind of weights; {_USE}")


def check_weights(weights: str) -> None:
    """Check the value of `--weights`: `default`, `none`, or a file of weights.

    Raises:
        SalpipeError: as `weights_kind`.
    """
    if weights not in ("default", "none"):
        weights_kind(Path(weights))


def require_safetensors(path: Path) -> None:
    """Check that a file is a safetensors file with a header of bounded size, before the library reads it.

    Raises:
        ValueError: it is not. The message is the reason.
        OSError: it cannot be read.
    """
    head, _, size = _ends(path)
    if not _is_safetensors(head, size):
        raise ValueError("not a .safetensors file")


def _ends(path: Path) -> tuple[bytes, bytes, int]:
    """The first bytes of a regular file, the last ones, and its size."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            head, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
            file.seek(max(0, size - len(_TENSORFLOW_INDEX)))
            return head, file.read(len(_TENSORFLOW_INDEX)), size
    except NotRegularError:
        raise ValueError("a device or pipe, not a regular file") from None


def _is_safetensors(head: bytes, size: int) -> bool:
    if not head:
        raise ValueError("empty")
    if head[8:9] != b"{" or head.startswith(b"PK"):
        return False
    length = int.from_bytes(head[:8], "little")
    if length > size - 8:
        raise ValueError("not a readable .safetensors file (cut short)")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header is larger than {MAX_HEADER_BYTES:,} bytes")
    return True
