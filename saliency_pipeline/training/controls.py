"""Maps that control arms are trained with instead of an image's own: what is left when saliency says nothing of it.

An arm with a saliency branch differs from the baseline by the branch and by what the maps say. A control keeps the
branch and takes away one thing that the maps say: about this image (`mismatched`), where it is (`shuffled-pixels`),
more than that objects stand in the middle (`center-prior`), anything at all (`uniform`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError

OWN, MISMATCHED, CENTER_PRIOR, UNIFORM, SHUFFLED = "own", "mismatched", "center-prior", "uniform", "shuffled-pixels"
MAPS = (OWN, MISMATCHED, CENTER_PRIOR, UNIFORM, SHUFFLED)

_SIGMA = 0.25
"""Standard deviation of the centre prior, as a share of the frame's side."""

_ROUNDS = 100

Positions = npt.NDArray[np.int64]


def partners(labels: npt.NDArray[np.int64], seed: int) -> Positions:
    """For every image another one, of another class, whose map it gets.

    As a rule a permutation: every map is used once, so that an arm sees the very maps that its twin sees. Where one
    class has more than half of the images there is none, and some maps are used several times. Images without a label
    get the map of any other image.

    Args:
        labels: (N,) int64, -1 unlabelled.
        seed: of the draw.

    Returns:
        (N,) int64, indices into `labels`.

    Raises:
        SalpipeError: there is no other class.
    """
    count = len(labels)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count])))
    # an unlabelled image is a class of its own
    groups = np.where(labels >= 0, labels, -1 - np.arange(count))
    if count and (groups == groups[0]).all():
        raise SalpipeError("mismatched maps are those of another class: give images of two classes or more")
    found = random.permutation(count)
    for _ in range(_ROUNDS):
        wrong = np.flatnonzero(groups[found] == groups)
        if not len(wrong):
            return found
        # of each that is wrong the partner is exchanged with anybody's; what that spoils is mended in the next round
        for index, other in zip(wrong.tolist(), random.integers(count, size=len(wrong)).tolist(), strict=True):
            if groups[found[other]] != groups[index]:
                found[index], found[other] = found[other], found[index]
    for index in np.flatnonzero(groups[found] == groups).tolist():
        found[index] = random.choice(np.flatnonzero(groups != groups[index]))
    return found


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
