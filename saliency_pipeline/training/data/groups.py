"""Images that folds keep together: near duplicates, searched among the stored frames, and groups of `--group-by`."""

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
from saliency_pipeline.images.record import Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets import THRESHOLD
from saliency_pipeline.subsets.duplicates import find_duplicates, group
from saliency_pipeline.subsets.fingerprint import ROW, VERSION, Fingerprints, Row, fingerprint_frame
from saliency_pipeline.subsets.grouping import described, groups_by
from saliency_pipeline.subsets.groups import Places, leaders, several, united
from saliency_pipeline.training.config import TrainConfig

KIND = "near-duplicates"
"""Of the entries in the user's cache folder."""

LARGE = 0.1
"""Share of all images from which a single group of near duplicates is suspected to be a false one."""

_TOGETHER = 256
_SEARCH = 1
"""Raised whenever the same fingerprints would give other groups."""
_MOST_REMEMBERED = 8

_remembered: dict[tuple[str, ...], Places] = {}


@dataclass(frozen=True, eq=False)
class Groups:
    """Which images of a folder of shards belong together.

    Attributes:
        numbers: (N,) int64, the place of the first image of each image's group, of duplicates and `--group-by` alike.
        searched: whether near duplicates were searched for, now or when the shards were made.
        optional: whether some are together only because their frames look alike, which `--no-search-duplicates` ends.
        by: the rule of `--group-by`, of training or of the shards, a table without its folder; None for none.
    """

    numbers: Places
    searched: bool
    optional: bool
    by: str | None

    @property
    def sha256(self) -> str:
        """Of the groups, in hexadecimal: equal where folds of the same options are equal."""
        return hashlib.sha256(self.numbers.astype("<i8").tobytes()).hexdigest()

    def report(self) -> dict[str, Any]:
        """For results: `searched`, `images` in groups of two or more, number of such `groups`, and `by`."""
        images, groups = several(self.numbers)
        return {"searched": self.searched, "images": images, "groups": groups, "by": self.by}

    def record(self, config: TrainConfig) -> dict[str, Any]:
        """The groups as a run keeps them: the report, and their hash where the folds of the run depend on them."""
        return self.report() | {"sha256": self.sha256 if config.folds or config.inner_split else None}

    def kept_together(self) -> dict[str, Any]:
        """The arguments of `choose_split` and `evaluation_rows` that are about groups."""
        return {
            "groups": self.numbers,
            "balanced": self.by is not None,
            "remedy": ", or --no-search-duplicates where images only look alike" if self.optional else "",
        }


def find_groups(config: TrainConfig, pairs: ShardFolder, progress: Progress | None = None) -> Groups:
    """The images that belong together under some options.

    Files of the same bytes are always kept together, and so are groups that the shards store. Where these are not of
    a search for near duplicates and `search_duplicates` is true, near duplicates are searched among the stored frames:
    deterministic, some milliseconds per image the first time, and kept in the user's cache folder. `group_by` unites
    further images.

    Args:
        config: `search_duplicates` and `group_by` count.
        pairs: the images.
        progress: receives the state of the search, its duration and its result.

    Raises:
        SalpipeError: a rule or table of `group_by` that gives no group.
        IntegrityError: a shard is damaged.
    """
    progress = progress or Progress()
    shards = [pairs.shard(number) for number in range(len(pairs.shards))]
    if not len(pairs):
        return Groups(np.zeros(0, np.int64), False, False, None)
    stored = searched_before(pairs)
    search = config.search_duplicates and not stored
    groupings = [_exact(np.concatenate([shard.source_sha256 for shard in shards]))]
    if pairs.header.groups:
        # the shards' own groups have always been taken as they are
        own = np.concatenate([shard.groups for shard in shards])
        groupings = [own] if stored else [*groupings, own]
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
    """Refuse to continue a run, or to evaluate it on its folds, with other groups: its folds would be others.

    Args:
        folder: of the run.
        before: what it recorded; None where it is of a version that recorded nothing.
        now: the record of the groups now, see `Groups.record`.
        otherwise: what else can be done.

    Raises:
        PlanMismatchError: the groups differ.
    """
    if not isinstance(before, dict) or before.get("sha256") == now["sha256"]:
        return
    by = f"the table of --group-by {now['by']} has changed" if now["by"] else "near duplicates are judged otherwise"
    raise PlanMismatchError(
        f"{folder}: its folds were made with other groups ({before.get('images')} -> {now['images']} images in groups; "
        f"{by}); restore what has changed, or {otherwise}"
    )


def searched_before(pairs: ShardFolder) -> bool:
    """Whether the groups that shards store are of a search for near duplicates, and not of `--group-by` alone."""
    data = _data(pairs)
    return pairs.header.groups and bool(data.get("group_duplicates", "group_by" not in data))


def divided(pairs: ShardFolder, groups: Groups, *, folds: bool) -> int:
    """How many images have one of their group in another split, so that images measured on resemble trained ones.

    Args:
        pairs: the images.
        groups: of `find_groups`.
        folds: whether folds are made of all images but the test split's; they divide no group themselves.
    """
    shards = [pairs.shard(number) for number in range(len(pairs.shards))]
    if not shards:
        return 0
    labels, splits = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("labels", "splits"))
    used = (labels >= 0) & ((splits >= 0) | folds)
    parts = splits[used] == Split.TEST if folds else splits[used]
    numbers = groups.numbers[used]
    both = np.unique(np.stack([numbers, parts], axis=1), axis=0)[:, 0]
    number, lies_in = np.unique(both, return_counts=True)
    return int(np.isin(numbers, number[lies_in > 1]).sum())


def _exact(sha256: npt.NDArray[np.uint8]) -> Places:
    _, same = np.unique(np.ascontiguousarray(sha256).view("V32").ravel(), return_inverse=True)
    return leaders(same)


def _data(pairs: ShardFolder) -> Mapping[str, Any]:
    """The `data` entry of the provenance of the shards: the data set and the options of its selection."""
    data = pairs.provenance.get("data")
    return data if isinstance(data, dict) else {}


def _near(pairs: ShardFolder, progress: Progress) -> Places:
    """Groups of near duplicates, from the cache where they were searched before."""
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
        how = "near duplicates, searched before"
    progress.note(f"{how}: {images:,} images in {count:,} groups{', kept together in folds' if images else ''}")
    largest = int(np.bincount(groups).max())
    if largest > max(2, LARGE * len(groups)):
        progress.note(
            f"{largest:,} of {len(groups):,} images are one group of near duplicates: where they only look alike, use "
            "--no-search-duplicates"
        )
    return groups


def frame_fingerprints(pairs: ShardFolder, progress: Progress | None = None) -> Fingerprints:
    """The fingerprints of all stored frames, 4.2 KB of memory each; the border of `--fit pad` does not count.

    As many threads work on them as this process trains with.
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
    padded = pairs.provenance.get("fit") == "pad"
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
    """Everything that decides which frames are near duplicates: the shards' plan, their files, and who compares."""
    files = hashlib.sha256()
    for number in range(len(pairs.shards)):
        files.update(pairs.shard(number).source_sha256.tobytes())
    versions = [f"{library.__name__} {library.__version__}" for library in (cv2, imagehash, PIL, np, scipy, torch)]
    frames = (pairs.header.plan, str(pairs.header.size), files.hexdigest())
    return (f"{_SEARCH}.{VERSION}", str(THRESHOLD), *frames, *versions)


def _serialized(groups: Places) -> bytes:
    file = io.BytesIO()
    np.save(file, groups, allow_pickle=False)
    return file.getvalue()


def _deserialized(data: bytes, count: int) -> Places:
    groups = np.load(io.BytesIO(data), allow_pickle=False)
    if groups.dtype != np.int64 or groups.shape != (count,) or (leaders(groups) != groups).any():
        raise ValueError("no groups of these images")
    return groups  # type: ignore[no-any-return]
