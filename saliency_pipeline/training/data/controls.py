"""Maps that control arms are trained with instead of an image's own: what is left when saliency says nothing of it.

An arm with a saliency branch differs from the baseline by the branch and by what the maps say. A control keeps the
branch and takes away one thing that the maps say: about this image (`mismatched`), about this image beyond its class
(`mismatched-same-class`), where it is (`shuffled-pixels`), more than that objects stand in the middle (`center-prior`),
anything at all (`uniform`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import MISMATCHED, OWN, SAME_CLASS, SHUFFLED, UNIFORM

STORED = (OWN, MISMATCHED, SAME_CLASS, SHUFFLED)
"""Those that read the maps of the shards."""

RENEWED = (MISMATCHED, UNIFORM)
"""Those that are other maps than in runs of earlier versions, which record no groups."""

_SIGMA = 0.25
"""Standard deviation of the center prior, as a share of the frame's side."""

Positions = npt.NDArray[np.int64]


def partners(count: int, seed: int) -> Positions:
    """For every image another one whose map it gets: a random derangement that looks at nothing but their number.

    Every map is used once, so that an arm sees the very maps that its twin sees. Labels play no part: were a partner
    always of another class, a map would say what the image is not, which with two classes is what it is.

    Args:
        count: number of images.
        seed: random seed.

    Returns:
        (count,) int64, a permutation without fixed points.

    Raises:
        SalpipeError: there is one image alone.

    >>> bool((partners(5, seed=0) == np.arange(5)).any())
    False
    """
    if count == 1:
        raise SalpipeError("mismatched maps are those of other images: one image alone has none; add images")
    random, places = _random(seed, count), np.arange(count)
    while True:  # a permutation has no fixed point in 37 % of the cases, so that this ends after three on average
        permutation = random.permutation(count)
        if not (permutation == places).any():
            return permutation


def partners_of_class(labels: npt.NDArray[np.int64], seed: int) -> Positions:
    """For every image another one of its class whose map it gets: a random derangement of every class.

    Args:
        labels: (N,) int64, -1 unlabeled.
        seed: random seed.

    Returns:
        (N,) int64, a permutation of the images of each class without fixed points; an image that is alone in its class
        gets the map of any other image.

    Raises:
        SalpipeError: there is one image alone.
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
    """A Gaussian bump in the middle, float32 (h, w) in (0, 1]: where photographers put things.

    >>> center_prior(3, 3).round(2).tolist()[1]
    [0.4099999964237213, 1.0, 0.4099999964237213]
    """
    down, right = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    bump = np.exp(-(down[:, None] ** 2 + right[None, :] ** 2) / (2 * _SIGMA**2))
    return bump.astype(np.float32)


def shuffle_cells(maps: npt.NDArray[np.float32], positions: Positions, seed: int) -> npt.NDArray[np.float32]:
    """Every map's own values in other places; an image's shuffle is always the same.

    Args:
        maps: (B, h, w) float32.
        positions: (B,) of the images in their data set.
        seed: of the shuffles.

    Returns:
        (B, h, w) float32, each map a permutation of its own cells.
    """
    shuffled = np.empty_like(maps)
    for place, position in enumerate(positions.tolist()):
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, position])))
        shuffled[place] = random.permutation(maps[place].reshape(-1)).reshape(maps[place].shape)
    return shuffled
