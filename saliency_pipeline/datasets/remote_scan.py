"""Scanning of remote archives and tables: what readers need of them is read once and written into an index."""

from __future__ import annotations

import itertools
from pathlib import Path

from saliency_pipeline.contents import standing_in
from saliency_pipeline.datasets.files.archive import members
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.parquet_pages import MAX_LIGHT_BYTES, row_groups
from saliency_pipeline.datasets.parquet_rows import IMAGE_COLUMNS, LABEL_COLUMNS
from saliency_pipeline.datasets.remote_index import KeptBytes, Recorder, Window
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import ending_of, has_image_suffix
from saliency_pipeline.images.magic import FIRST_BYTES
from saliency_pipeline.remote.ahead import Span, merged
from saliency_pipeline.remote.file import RemoteError, RemoteFile

_LABELS, _MAX_LABEL_BYTES = frozenset({".cls", ".json"}), 1 << 20
_TAIL = 64 << 10
"""Bytes that Arrow reads at the end of a table."""

_NESTED = 2


def is_archive_name(name: str) -> bool:
    """Return whether a file is called as a tar."""
    return name.lower().endswith(".tar")


def is_table_name(name: str) -> bool:
    """Return whether a file is called as a parquet table."""
    return name.lower().endswith(".parquet")


def scan(name: str, file: RemoteFile) -> KeptBytes:
    """Read what readers need of an archive or a table; of a damaged one, as far as it can be read.

    Raises:
        RemoteError: the file cannot be requested.
    """
    kept, window = KeptBytes(), Window(file)
    contents = Recorder(window, kept)
    try:
        with standing_in({name: contents}):
            if is_table_name(name):
                return _table(name, file)
            _archive(name, contents, 0, None, 0)
    except RemoteError:
        raise
    except (ValueError, OSError, SalpipeError):
        pass  # it is damaged: readers find the same, and name it
    return kept


def _archive(path: str, contents: Recorder, start: int, length: int | None, depth: int) -> None:
    """Read headers, labels, and the first bytes of files without a suffix of images, also in archives within."""
    for member in members(path, Notes(), start=start, length=length, called=path):
        if is_archive_name(member.name) and depth < _NESTED:
            _archive(path, contents, member.offset, member.size, depth + 1)
        elif not has_image_suffix(member.name):
            is_label = ending_of(member.name.rpartition("/")[2]) in _LABELS and member.size <= _MAX_LABEL_BYTES
            contents.read(member.size if is_label else min(FIRST_BYTES, contents.size - member.offset), member.offset)


def _table(path: str, file: RemoteFile) -> KeptBytes:
    """Read the footer, and the columns of names and labels."""
    names = {*LABEL_COLUMNS, *(f"{image}.path" for image in IMAGE_COLUMNS)}
    spans = [
        Span(file, chunk.start, min(file.size, chunk.start + chunk.packed))
        for chunk in itertools.chain.from_iterable(group.chunks for group in row_groups(path))
        if chunk.column in names and 0 <= chunk.start < file.size and 0 < chunk.packed <= MAX_LIGHT_BYTES
    ]
    footer = int.from_bytes(file.read(4, file.size - 8), "little") + 8
    tail = max(0, file.size - max(footer, _TAIL))
    requests = sorted(request for request, _ in merged([*spans, Span(file, tail, file.size)]))
    kept = KeptBytes()
    for span in requests:
        kept.add(span.start, file.read(span.end - span.start, span.start))
    return kept


def indexed(name: str, file: RemoteFile, index: Path) -> None:
    """Write the index of an archive or a table, unless it is there."""
    if KeptBytes.load(index, file) is None:
        scan(name, file).save(index, file)
