"""What was read of a remote archive or table while its images were listed: kept, so that it is requested only once."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from saliency_pipeline.documents import open_regular, parse_json
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.remote.address import shown_url
from saliency_pipeline.remote.file import MOST, RemoteError, RemoteFile

_MAGIC = "salpipe-remote-index"
_VERSION = 1
_PACKED = 100  # of an index: headers of tars differ in names and sizes
_FIRST, _LONGEST = 256 << 10, 8 << 20
_OPEN, _PARALLEL = 4, 4


class KeptBytes:
    """Parts of a file by offset, without overlap; zeros at the end of a part, as in headers of tars, take no room."""

    def __init__(self) -> None:
        self._starts, self._lengths, self._places = array("Q"), array("Q"), array("Q", [0])
        self._data = bytearray()

    def add(self, offset: int, data: bytes) -> None:
        """Add a part behind all others; what is not behind them is left out."""
        if data and (not self._starts or offset >= self._starts[-1] + self._lengths[-1]):
            self._starts.append(offset)
            self._lengths.append(len(data))
            self._data += data.rstrip(b"\0")
            self._places.append(len(self._data))

    def read(self, length: int, offset: int) -> bytes | None:
        """Bytes from an offset, if all of them are there."""
        data, end = bytearray(), offset + length
        while offset < end:
            place = bisect_right(self._starts, offset) - 1
            if place < 0 or offset >= (behind := self._starts[place] + self._lengths[place]):
                return None
            count = min(end, behind) - offset
            start = self._places[place] + offset - self._starts[place]
            part = self._data[start : min(start + count, self._places[place + 1])]
            data += part + bytes(count - len(part))
            offset += count
        return bytes(data)

    def save(self, path: Path, file: RemoteFile) -> None:
        """Write it as the index of a file. Raises SalpipeError if that fails."""
        make_output(path.parent.parent)
        make_subfolder(path.parent)
        tables = [self._starts.tobytes(), self._lengths.tobytes(), self._places.tobytes(), bytes(self._data)]
        data = b"".join(tables)
        digest = hashlib.sha256(data).hexdigest()
        head = {**_described(file), "parts": len(self._starts), "bytes": len(data), "sha256": digest}
        write_atomically(path, json.dumps(head).encode() + b"\n" + zlib.compress(data, 1))

    @classmethod
    def load(cls, path: Path, file: RemoteFile) -> KeptBytes | None:
        """The index of a file; None if there is none, or a damaged one, or one of another version of the file."""
        try:
            with open(path, "rb", opener=open_regular) as stream:
                head, packed = parse_json(stream.readline(1 << 16)), stream.read()
            if {name: head[name] for name in _described(file)} != _described(file):
                return None
            if not 0 < head["bytes"] <= _PACKED * len(packed):
                return None
            data = zlib.decompressobj().decompress(packed, head["bytes"])
            kept, count = cls(), int(head["parts"])
            ends = [8 * count, 16 * count, 24 * count + 8]
            if hashlib.sha256(data).hexdigest() != head["sha256"] or not 0 <= ends[-1] <= len(data):
                return None
            kept._starts = array("Q", data[: ends[0]])
            kept._lengths = array("Q", data[ends[0] : ends[1]])
            kept._places = array("Q", data[ends[1] : ends[2]])
            kept._data = bytearray(data[ends[2] :])
            return kept if kept._places[-1] == len(kept._data) else None
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return None


def index_path(folder: Path, file: RemoteFile) -> Path:
    """Where the index of a version of a file is kept."""
    text = json.dumps(_described(file), sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.index"


def _described(file: RemoteFile) -> dict[str, object]:
    return {
        "format": _MAGIC,
        "version": _VERSION,
        "url": shown_url(file.url),
        "size": file.size,
        "tag": file.tag,
    }


class Window:
    """Contents of a remote file that are read forwards: requests grow, and then follow one another without a pause."""

    def __init__(self, file: RemoteFile) -> None:
        self.size = file.size
        self._file = file
        self._start, self._data, self._length = 0, b"", _FIRST
        self._following: deque[tuple[int, Future[bytes]]] = deque()

    def read(self, length: int, offset: int) -> bytes:
        """See `Contents`."""
        if (length := min(length, self.size - offset)) <= 0:
            return b""
        while not self._start <= offset <= offset + length <= self._start + len(self._data):
            self._move(length, offset)
        return self._data[offset - self._start : offset - self._start + length]

    def _move(self, length: int, offset: int) -> None:
        """Request what is read next, or behind what is there."""
        end = self._start + len(self._data)
        near = bool(self._data) and self._start <= offset <= end + _FIRST
        if near and self._length == _LONGEST >= length:
            rest = self._data[offset - self._start :]
            self._start, self._data = min(offset, end), rest + self._next(end)
            return
        self._following.clear()
        self._length = min(_LONGEST, 2 * self._length) if near else _FIRST
        self._start, self._data = offset, self._file.read(max(self._length, length), offset)

    def _next(self, start: int) -> bytes:
        """The bytes behind an offset, while those behind them are being requested."""
        if self._following and self._following[0][0] != start:
            self._following.clear()
        at = self._following[-1][0] + _LONGEST if self._following else start
        while len(self._following) < _PARALLEL and at < self.size:
            self._following.append((at, _pool(os.getpid()).submit(self._file.read, _LONGEST, at)))
            at += _LONGEST
        return self._following.popleft()[1].result()


@lru_cache(maxsize=1)
def _pool(_: int) -> ThreadPoolExecutor:
    """Threads for requests of a process."""
    return ThreadPoolExecutor(MOST, "scan")


class Recorder:
    """Contents of which all that is read is kept.

    Args:
        window: the contents.
        kept: receives what is read.
    """

    def __init__(self, window: Window, kept: KeptBytes) -> None:
        self.size = window.size
        self._window, self._kept = window, kept

    def read(self, length: int, offset: int) -> bytes:
        """See `Contents`."""
        if (data := self._kept.read(length, offset)) is None:
            data = self._window.read(length, offset)
            self._kept.add(offset, data)
        return data


class Indexes:
    """The indexes of the files of a data set, of which the last few that were used stay in memory.

    Attributes:
        failure: the first error of a request, which a reader may have taken for one of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.failure: RemoteError | None = None
        self._folder = folder
        self._recent: OrderedDict[RemoteFile, tuple[KeptBytes, Window]] = OrderedDict()

    def read(self, file: RemoteFile, length: int, offset: int) -> bytes:
        """Bytes of a file, from its index if that has them."""
        if file not in self._recent:
            kept = KeptBytes.load(index_path(self._folder, file), file) or KeptBytes()
            self._recent[file] = kept, Window(file)
        self._recent.move_to_end(file)
        while len(self._recent) > _OPEN:
            self._recent.popitem(last=False)
        kept, window = self._recent[file]
        if (data := kept.read(length, offset)) is not None:
            return data
        try:
            return window.read(length, offset)
        except RemoteError as error:
            self.failure = self.failure or error
            raise


class Indexed:
    """Contents of a remote file that come from its index where that has them."""

    def __init__(self, file: RemoteFile, indexes: Indexes) -> None:
        self.size = file.size
        self._file, self._indexes = file, indexes

    def read(self, length: int, offset: int) -> bytes:
        """See `Contents`."""
        return self._indexes.read(self._file, max(0, min(length, self.size - offset)), offset)
