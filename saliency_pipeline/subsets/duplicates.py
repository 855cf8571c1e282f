"""Exact and near duplicates of a data set: pairs, groups, conflicting labels, and removal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.subsets import MAX_THRESHOLD, THRESHOLD
from saliency_pipeline.subsets.fingerprint import Fingerprints
from saliency_pipeline.subsets.groups import Places, leaders
from saliency_pipeline.subsets.near import crops, same_frames, with_structure

POLICIES = ("keep-first", "drop-conflicts")

Policy = Literal["keep-first", "drop-conflicts"]


@dataclass(frozen=True)
class Duplicates:
    """Pairs of duplicate images of a catalogue.

    Attributes:
        pairs: (p, 2) int64 indices into the catalogue, i < j, sorted.
        exact: (p,) bool, True if the files are identical byte for byte.
        distances: (p,) float64 in [0, 1], 1 - correlation of their aligned gray levels; 0 if exact.
    """

    pairs: Places
    exact: npt.NDArray[np.bool_]
    distances: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pairs)


def find_duplicates(fingerprints: Fingerprints, *, threshold: float = THRESHOLD) -> Duplicates:
    """Find exact and near duplicates, in time O(n log n).

    Exact duplicates are files of the same bytes. Near duplicates are re-encodings, rescalings and crops by up to
    about a tenth on each side, with any change of color. A mirrored image is no duplicate, nor is another photograph
    of the same object. An image without structure, such as a white page, has exact duplicates only.

    Not all pairs are returned, but the connected components are complete: an exact duplicate is paired with the first
    of its kind, each of many copies with a few others, and a crop with the first of the copies that show the same
    section.

    Args:
        fingerprints: of a catalogue; with hashed bytes alone only exact duplicates are found.
        threshold: largest distance of near duplicates, in [0, 0.1].

    Raises:
        SalpipeError: the threshold is out of range.
    """
    if not 0 <= threshold <= MAX_THRESHOLD:
        raise SalpipeError(f"--threshold {threshold:g}: use 0 to {MAX_THRESHOLD}; the default is {THRESHOLD}")
    readable = np.flatnonzero(fingerprints.readable)
    exact, single = _exact(fingerprints.sha256, readable)
    near, distances = np.zeros((0, 2), np.int64), np.zeros(0)
    if len(fingerprints.frames):
        frames, hashes = fingerprints.frames, fingerprints.hashes
        single = with_structure(frames, single)
        near, distances = same_frames(frames, hashes, single, threshold)
        first = single[group(near, len(fingerprints))[single] == single]
        cropped, further = crops(frames, hashes, first, threshold)
        near, distances = np.concatenate([near, cropped]), np.concatenate([distances, further])
    pairs = np.concatenate([exact, near])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Duplicates(
        pairs[order],
        (np.arange(len(pairs)) < len(exact))[order],
        np.concatenate([np.zeros(len(exact)), distances])[order],
    )


def _exact(sha256: npt.NDArray[np.uint8], among: Places) -> tuple[Places, Places]:
    """Pairs of each file with the first of the same bytes, and the indices of all first ones."""
    contents = np.ascontiguousarray(sha256[among]).view("V32").ravel()
    _, first, which = np.unique(contents, return_index=True, return_inverse=True)
    earliest = among[first[which]]
    again = earliest != among
    return np.stack([earliest[again], among[again]], axis=1), among[~again]


def group(pairs: Places, images: int) -> Places:
    """Connected components of pairs: the groups that no split may divide.

    Two members of a group may resemble each other only by way of a third.

    Args:
        pairs: (p, 2) indices.
        images: number of images.

    Returns:
        (images,) index of the first member of each image's group: its own if it has no duplicate before it.

    Example:
        >>> group(np.array([[1, 3], [3, 4]]), 6).tolist()
        [0, 1, 2, 1, 1, 5]
    """
    links = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(images, images))
    _, component = connected_components(links, directed=False)
    return leaders(component)


def marked(catalogue: Catalogue, groups: Sequence[int] | Places) -> Catalogue:
    """The catalogue with `record.group` set to the index of the first image of each group.

    Args:
        catalogue: the images.
        groups: (n,) equal numbers for duplicates, as `group` returns them.
    """
    if len(groups) != len(catalogue):
        raise ValueError(f"{len(groups)} groups for {len(catalogue)} images")
    records = list(catalogue.records)
    for places in members(groups):
        for place in places.tolist():
            records[place] = replace(records[place], group=int(places[0]))
    return replace(catalogue, records=records)


def members(groups: Sequence[int] | Places) -> tuple[Places, ...]:
    """The groups of at least two images, as ascending indices of their members; ordered by their first member."""
    numbers = np.asarray(groups, np.int64)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    several = [places for places in np.split(order, starts[1:]) if len(places) > 1]
    return tuple(sorted(several, key=lambda places: int(places[0])))


def in_conflict(records: Iterable[ImageRecord]) -> bool:
    """True if images of one group have different labels. Unlabeled ones conflict with none."""
    return len({record.label for record in records} - {-1}) > 1


def leaks(records: Iterable[ImageRecord]) -> bool:
    """True if images of one group are in different splits. Those without a split conflict with none."""
    return len({record.split for record in records} - {Split.NONE}) > 1


def dedupe(catalogue: Catalogue, groups: Sequence[int] | Places, policy: Policy) -> Catalogue:
    """Remove duplicates from a catalogue.

    Args:
        catalogue: the images.
        groups: (n,) equal numbers for duplicates, as `group` returns them.
        policy: `keep-first` keeps the first image of each group in the catalogue, whatever its split;
            `drop-conflicts` does too, but removes groups with different labels altogether.

    Returns:
        The catalogue, with all of its classes and a note of the number of removed images. See `dropped`.

    Raises:
        SalpipeError: unknown policy.

    Example:
        >>> records = [ImageRecord(key, key, label) for key, label in (("a", 0), ("b", 1), ("c", 0), ("d", 0))]
        >>> catalogue = Catalogue("photos", records, ("cat", "dog"))
        >>> [record.key for record in dedupe(catalogue, [0, 0, 2, 2], "keep-first").records]
        ['a', 'c']
        >>> [record.key for record in dedupe(catalogue, [0, 0, 2, 2], "drop-conflicts").records]
        ['c']
    """
    gone = dropped(catalogue, groups, policy)
    records = [record for record, drop in zip(catalogue.records, gone, strict=True) if not drop]
    notes = catalogue.notes
    if gone.any():
        notes += (f"duplicates left out ({policy}): {gone.sum():,}, images kept: {len(records):,}",)
    return replace(catalogue, records=records, notes=notes)


def dropped(catalogue: Catalogue, groups: Sequence[int] | Places, policy: Policy) -> npt.NDArray[np.bool_]:
    """Mask of the images that `dedupe` removes, (n,) bool."""
    if policy not in POLICIES:
        raise SalpipeError(f"dedupe {policy!r}: use one of {', '.join(POLICIES)}")
    if len(groups) != len(catalogue):
        raise ValueError(f"{len(groups)} groups for {len(catalogue)} images")
    gone = np.zeros(len(catalogue), np.bool_)
    for places in members(groups):
        conflict = policy == "drop-conflicts" and in_conflict([catalogue.records[place] for place in places])
        gone[places if conflict else places[1:]] = True
    return gone
