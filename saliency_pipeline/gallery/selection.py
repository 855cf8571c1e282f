"""Selection of the images that a gallery shows, by labels and keys alone."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name as composed
from saliency_pipeline.shards.reader import ShardFolder

# opening a shard takes some milliseconds: of thousands, not all are opened to fill one page
_SHARDS_OPENED = 64
# comparing with every key of a large data set would take longer than correcting the name
_KEYS_COMPARED = 20_000
_NAMES_LISTED = 20


def choose(
    folder: ShardFolder,
    count: int,
    *,
    keys: Sequence[str] = (),
    class_name: str | None = None,
    random: bool = False,
    seed: int = 0,
) -> list[int]:
    """Indices of the images to show; the same for the same data set and arguments.

    By default the classes are balanced as far as they have enough images, which are spread evenly over the data set.
    Of more than 64 shards, 64 that are spread evenly are opened. The arguments are those of `page.show`; with `keys`,
    `count` is ignored.

    Returns:
        Distinct indices in the data set: by class and index, or in the order of the sample or the keys.

    Raises:
        SalpipeError: an unknown key or class, a selection that contradicts itself, or nothing to show.
    """
    if count < 1:
        raise SalpipeError(f"{count} images cannot be shown; choose at least 1")
    if not len(folder):
        raise SalpipeError(f"{folder.path} holds no images; there is nothing to show")
    if keys:
        if class_name is not None or random:
            raise SalpipeError("keys select single images; leave out either them or the class and the random sample")
        return [_find(folder, key) for key in dict.fromkeys(keys)]
    if class_name is not None:
        label = label_of(folder, class_name)
        labels, _ = _labels(folder)
        candidates: Sequence[int] = np.flatnonzero(labels == label).tolist()
        if not candidates:
            raise SalpipeError(f"{folder.path} holds no images of class '{class_name}'; choose another class")
        return Random(seed).sample(candidates, min(count, len(candidates))) if random else _evenly(candidates, count)
    if random:
        return Random(seed).sample(range(len(folder)), min(count, len(folder)))
    labels, positions = _labels(folder, _SHARDS_OPENED if len(folder.shards) > _SHARDS_OPENED else None)
    if len(labels) < min(count, len(folder)):
        labels, positions = _labels(folder)
    return _spread(labels, positions, count)


def _labels(folder: ShardFolder, shards: int | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Labels and indices of the images in all shards, or in about `shards` that are spread evenly."""
    labels, positions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    end = 0
    within = range(len(folder)) if shards is None else _evenly(range(len(folder)), shards)
    for position in within:
        if position < end:
            continue
        number, row = folder.locate(position)
        of_shard = folder.shard(number).labels
        start, end = position - row, position - row + len(of_shard)
        labels.append(of_shard)
        positions.append(np.arange(start, end))
    return np.concatenate(labels), np.concatenate(positions)


def _spread(labels: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], count: int) -> list[int]:
    """Indices balanced over the labels as far as they have enough images; sorted by label and index."""
    order = np.argsort(labels, kind="stable")
    _, firsts = np.unique(labels[order], return_index=True)
    groups = [group.tolist() for group in np.split(positions[order], firsts[1:])]
    quotas = [0] * len(groups)
    left = min(count, len(labels))
    while left:
        growing = _evenly([i for i, group in enumerate(groups) if quotas[i] < len(group)], left)
        for i in growing:
            quotas[i] += 1
        left -= len(growing)
    return [position for group, quota in zip(groups, quotas, strict=True) for position in _evenly(group, quota)]


def _evenly(items: Sequence[int], count: int) -> list[int]:
    """`count` items, or all, from the middles of as many parts of equal length.

    >>> _evenly(range(10), 2), _evenly([4, 5], 3)
    ([2, 7], [4, 5])
    """
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def label_of(folder: ShardFolder, name: str) -> int:
    """Label of a class, named in either Unicode form.

    Raises:
        SalpipeError: there is no such class; names the nearest ones.
    """
    classes = folder.classes
    for spelling in (name, composed(name)):
        if spelling in classes:
            return classes.index(spelling)
    if not classes:
        raise SalpipeError(f"no class '{name}': {folder.path} is not labeled; leave the class out")
    listed = ", ".join(classes[:_NAMES_LISTED])
    if len(classes) > _NAMES_LISTED:
        listed += f" and {len(classes) - _NAMES_LISTED:,} more"
    near = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean '{near[0]}'? there are" if near else "there are"
    raise SalpipeError(f"no class '{name}' in {folder.path}; {hint} {listed}")


def _find(folder: ShardFolder, key: str) -> int:
    try:
        return folder.find(key)
    except SalpipeError as error:
        keys = folder.keys()
        # most often a part of the path is missing
        near = [each for each in keys if key.casefold() in each.casefold()][:3] if key else []
        near = near or difflib.get_close_matches(key, keys[:_KEYS_COMPARED], n=3)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"keys look like {keys[0]!r}"
        raise SalpipeError(f"{error}; {hint}") from None
