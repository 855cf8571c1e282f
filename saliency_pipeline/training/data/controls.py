"""Control maps: replacements of an image's own map that keep the saliency branch and remove one kind of information.

An arm with a saliency branch differs from the baseline by the branch and by the information in the maps. The controls
remove the information on this image (`mismatched`), on this image beyond its class (`mismatched-same-class`), on the
location (`shuffled-pixels`), on all but that objects are centered (`center-prior`), or all of it (`uniform`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError

_SIGMA = 0.25
"""Standard deviation of the center prior, as a share of the frame's side."""

Positions = npt.NDArray[np.int64]


def partners(count: int, seed: int) -> Positions:
    """For every image another image whose map replaces its own: a random derangement that ignores labels.

    Every map is used once, so that the arm sees the same maps as its twin. If partners were always of another class, a
    map would reveal a class that the image does not have; with two classes that is its label.

    Returns:
        (count,) int64, a permutation without fixed points.

    Raises:
        SalpipeError: there is only one image.

    >>> bool((partners(5, seed=0) == np.arange(5)).any())
    False
    """
    if count == 1:
        raise SalpipeError("mismatched maps are those of other images, and there is only one image; add images")
    random, places = _random(seed, count), np.arange(count)
    while True:  # 37 % of all permutations have no fixed point
        permutation = random.permutation(count)
        if not (permutation == places).any():
            return permutation


def partners_of_class(labels: npt.NDArray[np.int64], seed: int) -> Positions:
    """For every image another image of its class whose map replaces its own: a random derangement per class.

    Args:
        labels: (N,) int64, -1 unlabeled.
        seed: random seed.

    Returns:
        (N,) int64, a permutation of the images of each class without fixed points; an image that is alone in its class
        gets the map of any other image.

    Raises:
        SalpipeError: there is only one image.
    """
    chosen = partners(len(labels), seed)
    for label in np.unique(labels).tolist():
        places = np.flatnonzero(labels == label)
        if len(places) > 1:
            chosen[places] = places[partners(len(places), seed + label + 1)]
    return chosen


def _random(seed: int, count: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count])))


def center_prior(height: int, width: int) -> npt.NDArray[np.float32]:
    """A centered Gaussian, float32 (h, w) in (0, 1], since photographers center objects.

    >>> center_prior(3, 3).round(2).tolist()[1]
    [0.4099999964237213, 1.0, 0.4099999964237213]
    """
    down, right = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    bump = np.exp(-(down[:, None] ** 2 + right[None, :] ** 2) / (2 * _SIGMA**2))
    return bump.astype(np.float32)


def shuffle_cells(maps: npt.NDArray[np.float32], positions: Positions, seed: int) -> npt.NDArray[np.float32]:
    """Shuffle the cells of each map; the shuffle of an image is always the same.

    Args:
        maps: (B, h, w) float32.
        positions: (B,) positions of the images in their data set.
        seed: random seed.

    Returns:
        (B, h, w) float32, each map a permutation of its own cells.
    """
    shuffled = np.empty_like(maps)
    for place, position in enumerate(positions.tolist()):
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, position])))
        shuffled[place] = random.permutation(maps[place].reshape(-1)).reshape(maps[place].shape)
    return shuffled
