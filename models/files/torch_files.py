"""Files of `torch.save`, opened without reading values: the tensors and their positions in the file.

Both containers are supported, the zip archive of PyTorch 1.6 and later and the sequence of pickles before it.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from saliency_pipeline.documents import open_regular
from saliency_pipeline.models.files.pickles import read_pickle
from saliency_pipeline.models.files.views import UnreadableWeightsError, View

MAX_PICKLE_BYTES = 64 << 20
"""Size limit of the pickle of an archive; values of tensors are stored outside of it."""
MAX_DIRECTORY_BYTES = 8 << 20
"""Size limit of a zip archive's directory, enough for about 100,000 tensors."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = struct.Struct("<26xHH")


@dataclass(frozen=True)
class Located:
    """A tensor of a file of `torch.save`; `begin` is the offset of its storage in the file, in bytes."""

    path: Path
    view: View
    begin: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""
        return self.view.shape

    @property
    def nbytes(self) -> int:
        """Number of bytes that are read for it."""
        return self.view.extent * self.view.dtype.itemsize

    def read(self) -> Tensor:
        """Read the tensor, with the strides it was stored with.

        Raises:
            OSError: the file cannot be read.
            UnreadableWeightsError: the file was truncated.
        """
        view = self.view
        if not self.nbytes:
            return torch.empty(view.shape, dtype=view.dtype)
        data = bytearray(self.nbytes)
        with open(self.path, "rb", opener=open_regular) as file:
            file.seek(self.begin + view.offset * view.dtype.itemsize)
            if file.readinto(data) < len(data):
                raise UnreadableWeightsError("cut short")
        return torch.frombuffer(data, dtype=view.dtype).as_strided(view.shape, view.strides)


@dataclass(frozen=True, eq=False)
class TorchFile:
    """Contents of a file of `torch.save`.

    Attributes:
        path: the file.
        root: the outermost object, see `read_pickle`.
        classes: number of objects of other classes, by the name of the class.
        begins: offset and size of each storage in the file, in bytes.
    """

    path: Path
    root: Any
    classes: dict[str, int]
    begins: dict[str, tuple[int, int]]

    def locate(self, view: View) -> Located:
        """Locate a tensor in the file.

        Raises:
            UnreadableWeightsError: its storage is missing or incomplete.
        """
        begin, size = self.begins.get(view.storage.key, (0, -1))
        if size < view.storage.nbytes:
            raise UnreadableWeightsError("its tensors are not all in it")
        return Located(self.path, view, begin)


def open_torch_file(path: Path) -> TorchFile:
    """Open a file of `torch.save`.

    Raises:
        CodeError: its pickle calls a function.
        UnreadableWeightsError: it is damaged, compressed, or of an unsupported kind; the message is the reason.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=open_regular) as file:
        zipped = file.read(4) == b"PK\3\4"
        file.seek(0)
        return _open_archive(path, file) if zipped else _open_sequence(path, file)


# ---- archives ---------------------------------------------------------------------------------------------------


class _BoundedReads(io.RawIOBase):
    """A file for `zipfile`, which reads an archive's whole directory at once, of whatever declared size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size if 0 <= size <= MAX_DIRECTORY_BYTES else MAX_DIRECTORY_BYTES + 1)
        if len(data) > MAX_DIRECTORY_BYTES:
            raise UnreadableWeightsError(f"its zip archive has a directory of more than {MAX_DIRECTORY_BYTES:,} bytes")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def _open_archive(path: Path, file: IO[bytes]) -> TorchFile:
    try:
        with zipfile.ZipFile(_BoundedReads(file)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeError) as error:
        raise UnreadableWeightsError("its zip archive is damaged") from error
    names = {entry.filename: entry for entry in entries}
    root, _, _ = entries[0].filename.partition("/") if entries else ("", "", "")
    if any(name.endswith(".npy") for name in names):
        raise UnreadableWeightsError("holds NumPy arrays; save them as .safetensors, with safetensors.numpy.save_file")
    if f"{root}/constants.pkl" in names:
        raise UnreadableWeightsError(
            "a TorchScript program; load it with torch.jit.load and save its state_dict() there instead"
        )
    if (described := names.get(f"{root}/data.pkl")) is None:
        raise UnreadableWeightsError("a zip archive, but not of torch.save; unpack it and give the file of weights")
    size = os.fstat(file.fileno()).st_size
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise UnreadableWeightsError("its zip archive is compressed, as torch.save never does; save it again")
    if any(entry.flag_bits & 1 for entry in entries):
        raise UnreadableWeightsError("its zip archive is encrypted; save it again")
    if sum(entry.file_size for entry in entries) > size:
        raise UnreadableWeightsError("its zip archive is damaged: its parts are larger than the file")
    if (order := names.get(f"{root}/byteorder")) and _record(file, order, size) not in (b"little", b""):
        raise UnreadableWeightsError("written on a big-endian machine; save it again on another one")
    contents = read_pickle(io.BytesIO(_record(file, described, size)))
    data = f"{root}/data/"
    begins = {
        name.removeprefix(data): (_begin(file, entry, size), entry.file_size)
        for name, entry in names.items()
        if name.startswith(data)
    }
    return TorchFile(path, contents.root, contents.classes, begins)


def _begin(file: IO[bytes], entry: zipfile.ZipInfo, size: int) -> int:
    """Offset of an entry's bytes in an archive of `size` bytes."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) == _LOCAL_HEADER.size and header.startswith(b"PK\3\4"):
        begin = entry.header_offset + len(header) + sum(_LOCAL_HEADER.unpack(header))
        if begin + entry.file_size <= size:
            return int(begin)
    raise UnreadableWeightsError("its zip archive is damaged")


def _record(file: IO[bytes], entry: zipfile.ZipInfo, size: int) -> bytes:
    if entry.file_size > MAX_PICKLE_BYTES:
        raise UnreadableWeightsError(
            f"its pickle is larger than {MAX_PICKLE_BYTES:,} bytes, as with arrays of NumPy in it; "
            "save tensors alone, best as .safetensors"
        )
    file.seek(_begin(file, entry, size))
    return file.read(entry.file_size)


# ---- pickles, one after the other -------------------------------------------------------------------------------


def _open_sequence(path: Path, file: IO[bytes]) -> TorchFile:
    """A magic number, the version, the machine, the object, the names of the storages, and the storages."""
    if read_pickle(file).root != _LEGACY_MAGIC:
        raise UnreadableWeightsError("not a weights-only pickle; save the network's state_dict() there")
    for _ in ("version", "machine"):
        read_pickle(file)
    contents = read_pickle(file)
    size, begins = os.fstat(file.fileno()).st_size, {}
    for key in read_pickle(file).root:
        storage, head = contents.storages.get(key), file.read(8)
        if storage is None or len(head) < 8 or int.from_bytes(head, "little") != storage.count:
            raise UnreadableWeightsError("cut short or damaged")
        begins[key] = (file.tell(), storage.nbytes)
        if file.seek(storage.nbytes, os.SEEK_CUR) > size:
            raise UnreadableWeightsError("cut short")
    return TorchFile(path, contents.root, contents.classes, begins)
