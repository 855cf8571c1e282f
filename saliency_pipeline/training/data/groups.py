"""Groups of images that folds keep together: near duplicates among the stored frames, and those of `--group-by`."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
import PIL
import scipy
import torch

from saliency_pipeline.cache import cached
from saliency_pipeline.errors import PlanMismatchError
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.images.record import Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets import THRESHOLD
from saliency_pipeline.subsets.duplicates import find_duplicates, group
from saliency_pipeline.subsets.fingerprint import ROW, VERSION, Fingerprints, Row, fingerprint_frame
from saliency_pipeline.subsets.group_by import described, groups_by
from saliency_pipeline.subsets.groups import Places, leaders, several, united
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.split import Together

KIND = "near-duplicates"
"""Kind of the entries in the user's cache folder."""

LARGE = 0.1
"""Share of all images above which a single group of near duplicates is probably a false one."""

_TOGETHER = 256
_SEARCH = 1
"""Version of the search, raised whenever the same fingerprints would give other groups."""
_MOST_REMEMBERED = 8

_remembered: dict[tuple[str, ...], Places] = {}


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of the images of a folder of shards.

    Attributes:
        numbers: (N,) int64, position of the first image of each image's group, of duplicates and `--group-by` alike.
        searched: True if near duplicates were searched for, now or when the shards were made.
        optional: True if some groups exist only because frames look alike, which `--no-search-duplicates` disables.
        by: rule of `--group-by`, of training or of the shards, a table without its folder; None without a rule.
    """

    numbers: Places
    searched: bool
    optional: bool
    by: str | None

    @property
    def sha256(self) -> str:
        """Hash of the groups, in hexadecimal: equal groups give equal folds for the same options."""
        return hashlib.sha256(self.numbers.astype("<i8").tobytes()).hexdigest()

    def report(self) -> dict[str, Any]:
        """JSON-serializable summary: `searched`, `images` in groups of two or more, number of these `groups`, `by`."""
        images, groups = several(self.numbers)
        return {"searched": self.searched, "images": images, "groups": groups, "by": self.by}

    def record(self, config: TrainConfig) -> dict[str, Any]:
        """The report and, where the folds of a run depend on the groups, their hash, as in `provenance.json`."""
        return self.report() | {"sha256": self.sha256 if config.folds or config.inner_split else None}

    @property
    def together(self) -> Together:
        """The groups as `choose_split` and `evaluation_rows` take them."""
        remedy = ", or --no-search-duplicates where images only look alike" if self.optional else ""
        return Together(self.numbers, self.by is not None, remedy)


def find_groups(config: TrainConfig, pairs: ShardFolder, progress: Progress | None = None) -> Groups:
    """Find the groups of images that `search_duplicates` and `group_by` ask for.

    Identical files are always grouped, and groups stored in the shards apply. Unless those come from a search for near
    duplicates, and if `search_duplicates` is true, near duplicates are searched among the stored frames:
    deterministic, some milliseconds per image the first time, and cached in the user's cache folder. `group_by` groups
    further images.

    Raises:
        SalpipeError: a rule or table of `group_by` that yields no group.
        IntegrityError: a shard is damaged.
    """
    progress = progress or Progress()
    if not len(pairs):
        return Groups(np.zeros(0, np.int64), False, False, None)
    stored = searched_before(pairs)
    search = config.search_duplicates and not stored
    groupings = [_exact(pairs.source_sha256)]
    if pairs.header.groups:
        groupings = [pairs.groups] if stored else [*groupings, pairs.groups]
    optional = False
    if search:
        groupings.append(_near(pairs, progress))
        optional = several(groupings[-1]) != several(groupings[0])
    by = _data(pairs).get("group_by")
    if config.group_by is not None:
        by = described(config.group_by)
        numbers = groups_by(pairs.keys(), config.group_by)
        groupings.append(numbers)
        if alone := int((numbers < 0).sum()):
            progress.note(f"--group-by {config.group_by}: {alone:,} of {len(numbers):,} images are in no group")
    return Groups(
        united(*groupings) if len(groupings) > 1 else leaders(groupings[0]),
        search or stored,
        optional,
        None if by is None else str(by),
    )


def check_same_groups(
    folder: Path, before: Any, now: Mapping[str, Any], otherwise: str = "choose another output folder"
) -> None:
    """Check that a run is resumed, or evaluated on its folds, with the groups that its folds were made with.

    Args:
        folder: folder of the run.
        before: its record of the groups, from a file; a value of another kind is not compared.
        now: the current record, see `Groups.record`.
        otherwise: remedy for the error.

    Raises:
        PlanMismatchError: the groups differ.
    """
    if not isinstance(before, dict) or before.get("sha256") == now["sha256"]:
        return
    by = (
        f"the table of --group-by {now['by']} has changed"
        if now["by"]
        else "near duplicates are now judged differently"
    )
    raise PlanMismatchError(
        f"{folder}: its folds were made with other groups ({before.get('images')} -> {now['images']} images in groups; "
        f"{by}); restore what has changed, or {otherwise}"
    )


def searched_before(pairs: ShardFolder) -> bool:
    """Return whether the stored groups come from a search for near duplicates, not from `--group-by` alone."""
    data = _data(pairs)
    return pairs.header.groups and bool(data.get("group_duplicates", "group_by" not in data))


def divided(pairs: ShardFolder, groups: Groups, *, folds: bool) -> int:
    """Number of images with an image of their group in another split: evaluated images then resemble training images.

    Args:
        pairs: the images.
        groups: from `find_groups`.
        folds: True if folds are made of all images but the test split's; they divide no group themselves.
    """
    used = (pairs.labels >= 0) & ((pairs.splits >= 0) | folds)
    parts = pairs.splits[used] == Split.TEST if folds else pairs.splits[used]
    numbers = groups.numbers[used]
    both = np.unique(np.stack([numbers, parts], axis=1), axis=0)[:, 0]
    number, lies_in = np.unique(both, return_counts=True)
    return int(np.isin(numbers, number[lies_in > 1]).sum())


def _exact(sha256: npt.NDArray[np.uint8]) -> Places:
    _, same = np.unique(np.ascontiguousarray(sha256).view("V32").ravel(), return_inverse=True)
    return leaders(same)


def _data(pairs: ShardFolder) -> Mapping[str, Any]:
    """The `data` entry of the provenance of the shards: the data set and the options of its selection."""
    return Provenance.from_json(pairs.provenance).data


def _near(pairs: ShardFolder, progress: Progress) -> Places:
    """Groups of near duplicates, from the cache if it has them."""
    key = _key(pairs)
    begun, searched = time.perf_counter(), False

    def search() -> Places:
        nonlocal searched
        searched = True
        return group(find_duplicates(frame_fingerprints(pairs, progress)).pairs, len(pairs))

    groups = _remembered.get(key)
    if groups is None:
        groups = cached(KIND, key, search, _serialized, lambda data: _deserialized(data, len(pairs)))
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.pop(next(iter(_remembered)))
        _remembered[key] = groups
    images, count = several(groups)
    if searched:
        how = f"searched {len(pairs):,} frames for near duplicates in {time.perf_counter() - begun:.1f} s"
    else:
        how = "near duplicates, from the cache"
    progress.note(f"{how}: {images:,} images in {count:,} groups{', kept together in folds' if images else ''}")
    largest = int(np.bincount(groups).max())
    if largest > max(2, LARGE * len(groups)):
        progress.note(
            f"{largest:,} of {len(groups):,} images are one group of near duplicates; if they only look alike, use "
            "--no-search-duplicates"
        )
    return groups


def frame_fingerprints(pairs: ShardFolder, progress: Progress | None = None) -> Fingerprints:
    """Fingerprints of all stored frames, 4.2 KB of memory each, without the border of `--fit pad`.

    Uses as many threads as PyTorch does.
    """
    progress = progress or Progress()
    rows = np.zeros(len(pairs), ROW)
    progress.start(len(pairs), "frame", "searching for near duplicates")
    try:
        for place, row in enumerate(_rows(pairs, torch.get_num_threads())):
            rows[place] = row
            progress.advance(1)
    finally:
        progress.stop()
    readable = np.ones(len(rows), np.bool_)
    return Fingerprints(rows["sha256"], rows["hashes"].astype(np.uint64), rows["frame"], readable, {})


def _rows(pairs: ShardFolder, threads: int) -> Iterator[Row]:
    settings = Provenance.from_json(pairs.provenance).settings
    padded = settings is not None and settings.fit == "pad"
    with ThreadPoolExecutor(threads) as pool:
        for number in range(len(pairs.shards)):
            shard = pairs.shard(number)
            hashes = shard.source_sha256
            for start in range(0, len(shard), _TOGETHER):
                stop = min(start + _TOGETHER, len(shard))
                places = np.arange(start, stop)
                raw = shard.images(places) if shard.header.encoding == "raw" else None

                def row(place: int) -> Row:
                    frame = shard.frame(place) if raw is None else raw[place - start]  # noqa: B023 - used at once
                    return fingerprint_frame(frame, hashes[place].tobytes(), padded=padded)  # noqa: B023

                yield from pool.map(row, places.tolist())


def _key(pairs: ShardFolder) -> tuple[str, ...]:
    """Everything that near duplicates depend on: the shards, and the versions of libraries."""
    versions = [f"{library.__name__} {library.__version__}" for library in (cv2, imagehash, PIL, np, scipy, torch)]
    return (f"{_SEARCH}.{VERSION}", str(THRESHOLD), pairs.identity, str(pairs.header.size), *versions)


def _serialized(groups: Places) -> bytes:
    file = io.BytesIO()
    np.save(file, groups, allow_pickle=False)
    return file.getvalue()


def _deserialized(data: bytes, count: int) -> Places:
    groups = np.load(io.BytesIO(data), allow_pickle=False)
    if groups.dtype != np.int64 or groups.shape != (count,) or (leaders(groups) != groups).any():
        raise ValueError("no groups of these images")
    return groups  # type: ignore[no-any-return]
