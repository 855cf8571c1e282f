"""`verify`: finds damaged shards and what is wrong with them. Nothing is written; `salpipe generate` repairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.recognition import is_shards, no_shards
from saliency_pipeline.shards import schema
from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.manifest import MANIFEST, REJECTS, Manifest, ShardEntry, reject_lines
from saliency_pipeline.shards.schema import ShardHeader
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.storage.cache import ShardCache
from saliency_pipeline.storage.mirror import Mirror, local_folder

_CHUNK_BYTES = 8 * 2**20
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Problem:
    """A problem of one file, whose name is `shard`."""

    shard: str
    message: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.message}"


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`.

    Attributes:
        shards: number of shards checked, missing ones included.
        images: number of images in those whose structure could be read.
        deep: whether hashes, maps and images were checked too.
        problems: all problems, shard by shard.
    """

    shards: int
    images: int
    deep: bool
    problems: tuple[Problem, ...]

    @property
    def damaged(self) -> tuple[str, ...]:
        """Names of the files with problems, each once, in order."""
        return tuple(dict.fromkeys(problem.shard for problem in self.problems))


def verify(path: Path | str, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check a finished folder, or one shard by itself. Damage is reported, never raised.

    Every shard's structure is checked (it opens, is complete, has all data sets with the right types and as many rows
    as keys) and compared with the manifest (plan, classes, frame size, methods, number of images, bytes); the numbers
    stored with images and maps are within range: labels, splits, sizes, boxes, scores, scales, targets.

    Args:
        path: a folder of shards with its `manifest.json`, or one shard file; or the URL of a folder on object storage,
            whose shards are checked as they are there now if `deep`, otherwise as they are in the cache of this host.
        deep: also compute every SHA-256 and check all else: maps finite and in [-1, 1], stored JPEGs decodable, keys
            unique across shards.
        progress: called with (shards done, shards in all) after each shard.

    Returns:
        The report; the files are intact if it has no problems.

    Raises:
        SalpipeError: there is nothing to verify at `path`, or a newer salpipe wrote it.
    """
    path = local_folder(path)
    if not path.exists():
        raise SalpipeError(f"{path}: no such file or folder")
    mirror = Mirror.at(path)
    if not path.is_dir() and not is_shards(path):
        raise no_shards(path)
    problems: list[Problem] = []
    manifest = None
    if path.is_dir():
        manifest = _read_manifest(path, problems)
        present = sorted(entry.name for entry in path.iterdir() if schema.is_shard_name(entry.name))
        listed = {entry.name: entry for entry in manifest.shards} if manifest else {}
        if not manifest and not present:
            raise no_shards(path)
        if manifest:
            problems += _check_rejects(path, manifest)
            problems += [
                Problem(name, f"not listed in {MANIFEST}{'' if ours else ' and of another plan'}; move it away")
                for name, ours in manifest.unlisted(path).items()
            ]
        files = [path / name for name in (listed or present)]
    else:
        listed, files = {}, [path]
    keys: dict[bytes, str] | None = {} if deep else None
    images = 0
    for done, file in enumerate(files, start=1):
        check = _check_shard if mirror is None else _in_mirror(mirror, fresh=deep)
        messages, rows = check(file, listed.get(file.name), manifest.header if manifest else None, keys)
        problems += [Problem(file.name, message) for message in messages]
        images += rows
        if progress is not None:
            progress(done, len(files))
    return VerifyReport(len(files), images, deep, tuple(problems))


def _read_manifest(folder: Path, problems: list[Problem]) -> Manifest | None:
    if not (folder / MANIFEST).exists():
        problems.append(Problem(MANIFEST, "missing: the folder is not finished; run 'salpipe generate' again"))
        return None
    try:
        return Manifest.read(folder)
    except IntegrityError as error:
        problems.append(Problem(MANIFEST, str(error).removeprefix(f"{folder / MANIFEST}: ")))
        return None


def _check_rejects(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    # bounded, however large the file is
    most = max(10_000, 2 * manifest.rejects)
    try:
        lines = sum(1 for _ in islice(reject_lines(folder), most))
    except OSError as error:
        yield Problem(REJECTS, f"not readable ({error.strerror})")
        return
    if lines != manifest.rejects:
        yield Problem(
            REJECTS, f"{lines}{' or more' * (lines == most)} lines but {manifest.rejects} rejected images in {MANIFEST}"
        )


def _check_shard(
    path: Path, entry: ShardEntry | None, header: ShardHeader | None, keys: dict[bytes, str] | None
) -> tuple[list[str], int]:
    """Problems of one shard, and its number of images. All values are checked if `keys` is passed."""
    layout, problems = read_layout(path)
    if entry is not None and path.is_file():
        size = path.stat().st_size
        if size != entry.bytes:
            problems.append(f"{size} bytes but {entry.bytes} in {MANIFEST}")
        elif keys is not None:
            problems += _check_hash(path, entry)
    if layout is None:
        return problems, 0
    if header is not None and (names := layout.header.differences(header)):
        problems.append(f"not of this plan: {', '.join(names)} differ from {MANIFEST}")
    if entry is not None and layout.rows != entry.images:
        problems.append(f"{layout.rows} images but {entry.images} in {MANIFEST}")
    if not problems:
        shard = Shard(path, layout=layout)
        try:
            problems += _check_columns(shard)
            if keys is not None:
                problems += _check_bulk(shard, keys)
        except IntegrityError as error:
            problems.append(str(error).removeprefix(f"{path}: ").partition("; run ")[0])
    return problems, layout.rows


def _in_mirror(mirror: Mirror, *, fresh: bool) -> Callable[..., tuple[list[str], int]]:
    """`_check_shard` for shards on object storage; of what is in the cache, `fresh` fetches it again."""

    def check(path: Path, entry: ShardEntry | None, *others: Any) -> tuple[list[str], int]:
        if entry is None:
            return _check_shard(path, entry, *others)
        wanted = mirror.object(entry.name, entry.bytes, entry.sha256)
        try:
            if fresh:
                ShardCache().discard(wanted)
            with mirror.held(wanted):
                return _check_shard(path, entry, *others)
        except IntegrityError as error:
            return [str(error)], 0

    return check


def _check_hash(path: Path, entry: ShardEntry) -> Iterator[str]:
    try:
        if sha256_of(path) != entry.sha256:
            yield f"its SHA-256 is not the one in {MANIFEST}: bytes have changed"
    except OSError as error:
        yield f"not readable ({error.strerror})"


def _check_columns(shard: Shard) -> Iterator[str]:
    """Problems of the numbers stored with images and maps."""
    most = len(shard.source_classes) or 2**31
    predicted, score = shard.predictions
    checks: list[tuple[str, npt.NDArray[Any], float, float]] = [
        (schema.LABEL, shard.read(schema.LABEL), -1, len(shard.classes) - 1),
        (schema.SPLIT, shard.read(schema.SPLIT), -1, 2),
        (schema.SOURCE_SIZE, shard.source_sizes, 1, np.inf),
        (schema.GROUP, shard.groups, -1, np.inf),
        (schema.PREDICTED, predicted, -1, most - 1),
        (schema.SCORE, score, 0, 1.0001),
    ]
    for method in shard.methods:
        scales, flags = shard.read(schema.map_path(method, "scale")), shard.flags(method)
        checks += [
            (schema.map_path(method, "scale"), scales, 0, _MOST),
            (schema.map_path(method, "target"), shard.targets(method), -1, most - 1),
            (schema.map_path(method, "flag"), flags, 0, schema.ALL_FLAGS),
        ]
        if not np.array_equal(scales == 0, flags & schema.ALL_ZERO != 0):
            yield f"saliency/{method}: flags of all-zero maps do not agree with the scales"
        # NaN marks one that was not finite
        if (residuals := shard.residuals(method)) is not None:
            finite = np.where(np.isnan(residuals), np.float32(0), residuals)
            checks.append((schema.map_path(method, "residual"), finite, -_MOST, _MOST))
        if (errors := shard.standard_errors(method)) is not None:
            finite = np.where(np.isnan(errors), np.float32(0), errors)
            checks.append((schema.map_path(method, "standard_error"), finite, 0, _MOST))
    for name, values, low, high in checks:
        yield from _outside(name, values, low, high)
    for name, (offsets, _) in schema.ragged(shard.header).items():
        if not _fits(shard.read(offsets), shard.layout.places[name][1].shape[0]):
            yield f"{offsets} does not run from 0 to the end of {name}"
    if shard.header.boxes:
        boxes = shard.read(schema.BOX)
        if (reversed_boxes := (boxes[:, :2] >= boxes[:, 2:]).any(axis=1)).any():
            corners = ", ".join(map(str, boxes[reversed_boxes][0].tolist()))
            yield f"source/box has a box whose corners are reversed ({corners})"


def _check_bulk(shard: Shard, keys: dict[bytes, str]) -> Iterator[str]:
    """Problems of keys, maps and images."""
    for key in shard.keys:
        digest = blake2b(key.encode(), digest_size=16).digest()
        if not key:
            yield "a key is empty"
        elif digest in keys:
            yield f"key '{key}' is in {keys[digest]} too"
        keys[digest] = shard.path.name
    for method in shard.methods:
        yield from _check_maps(shard, method)
    if shard.header.encoding == "jpeg":
        for row in range(len(shard)):
            shard.images([row])


def _check_maps(shard: Shard, method: str) -> Iterator[str]:
    name = schema.map_path(method, "map")
    column = shard.layout.places[name][1]
    rows = len(shard)
    step = max(1, _CHUNK_BYTES * rows // max(1, column.nbytes))
    for start in range(0, rows, step):
        problems = list(_outside(name, shard.read(name, slice(start, start + step)), -1, 1, start))
        if problems:
            yield from problems
            return


def _fits(offsets: npt.NDArray[np.uint64], rows: int) -> bool:
    """Return whether the offsets of a ragged data set rise from 0 to its number of rows."""
    return bool(offsets[0] == 0 and not (offsets[1:] < offsets[:-1]).any() and offsets[-1] == rows)


def _outside(name: str, values: npt.NDArray[Any], low: float, high: float, first: int = 0) -> Iterator[str]:
    """A problem if a value is not finite or not in [low, high]; `first` is the row of the first value."""
    # written so that NaN, which compares false with everything, counts as outside
    bad = ~((values >= low) & (values <= high))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        yield f"{name} of image {where[0] + first} is {values[where]}, outside [{low:g}, {high:g}]"
