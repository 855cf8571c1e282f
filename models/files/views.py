"""Tensors as stored in files of PyTorch: views of storages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

_MOST_DIMENSIONS = 64
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


class UnreadableWeightsError(ValueError):
    """A file is damaged or of an unsupported kind. The message is the reason."""


@dataclass(frozen=True)
class Storage:
    """Memory that tensors share: name of its record, type and number of its values."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class View:
    """A tensor as a view of a storage without overlaps.

    Attributes:
        storage: the storage.
        dtype: type of the values.
        offset: offset of the first value, in values.
        shape: sizes.
        strides: strides in values.
        extent: distance of the last value from the first one, plus one; 0 for an empty tensor.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    extent: int


def make_storage(name: str, key: str, count: int) -> Storage:
    """The storage of a class, such as `torch.FloatStorage`.

    Raises:
        UnreadableWeightsError: its values are of an unsupported kind, or it is not a storage.
    """
    dtype = _STORAGES.get(name.rpartition(".")[2].removesuffix("Storage"))
    if dtype is None or not name.startswith("torch.") or type(count) is not int or count < 0:
        raise UnreadableWeightsError(f"holds values of an unsupported kind ({name})")
    return Storage(key, dtype, count)


def make_view(storage: Storage, offset: int, shape: Any, strides: Any, dtype: str | None) -> View:
    """A tensor over a storage.

    Args:
        storage: storage of its values.
        offset: offset of the first value, in values.
        shape: sizes.
        strides: strides in values.
        dtype: type of the values, such as `torch.float32`; None for that of the storage.

    Raises:
        UnreadableWeightsError: its values are of an unsupported kind, overlap, or exceed the storage.
    """
    kind = storage.dtype if dtype is None else _DTYPES.get(dtype)
    if kind is None:
        raise UnreadableWeightsError(f"holds values of an unsupported kind ({dtype})")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, numbers)):
        raise UnreadableWeightsError("a tensor of it is damaged")
    count = math.prod(shape)
    extent = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if count else 0
    if count > extent or (offset + extent) * kind.itemsize > storage.nbytes:
        raise UnreadableWeightsError(
            f"a tensor of shape {list(shape)} is larger than what is stored of it; save contiguous tensors"
        )
    return View(storage, kind, offset, tuple(shape), tuple(strides), extent)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
