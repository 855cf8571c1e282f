"""Search for pairs of images that look the same, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from saliency_pipeline.subsets.fingerprint import SIDE, WINDOWS
from saliency_pipeline.subsets.groups import Places

SAME_FRAME_BITS, CROP_BITS = 8, 14
"""Largest number of differing bits, of 64, of two perceptual hashes of candidates. Re-encoding and rescaling change up
to 4; a crop compared with the nearest window up to 14; two photographs differ by 32 on average."""

FLAT = 2.0
"""Standard deviation, in gray levels, below which an image is empty."""

_TURN, _REACH = 4, 8
_TOGETHER = 1024
_COARSE_SIDE, _COARSE_DISTANCE, _MOST_FITTED = 8, 0.2, 4
# a mirrored image has to be this much nearer than the image itself
_MIRRORED = 0.5
# shares of a side: what a crop leaves of it, how far it may reach beyond, how much it may lean
_LEAST_KEPT, _SLACK, _MOST_SHEAR = 0.72, 0.03, 0.03
_ALL = np.ones((SIDE, SIDE), np.uint8)
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)

Hashes = npt.NDArray[np.uint64]
Frames = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.float64]


def same_frames(frames: Frames, hashes: Hashes, among: Places, most: float) -> tuple[Places, Distances]:
    """Pairs of images that show the same section of the same picture: re-encoded, rescaled or identical.

    Args:
        frames: (n, 64, 64) frames of fingerprints.
        hashes: (n, 11) uint64 hashes of fingerprints.
        among: (m,) indices of the images that are compared.
        most: largest distance of a pair, 1 - correlation of the frames' gray levels.

    Returns:
        Pairs (p, 2), i < j and sorted, and their distances (p,). Each of many copies is paired with a few, so that
        they are connected.
    """
    candidates, _ = _candidates(hashes[among], SAME_FRAME_BITS, windows=1)
    pairs = np.unique(np.sort(among[candidates], axis=1), axis=0)
    distances = np.empty(len(pairs))
    for part in _parts(len(pairs)):
        first, second = (_normalized(frames[pairs[part, side]]) for side in (0, 1))
        distances[part] = 1 - _correlation(first, second)
        mirrored = 1 - _correlation(first, second[:, :, ::-1])
        distances[part][_is_mirrored(distances[part], mirrored)] = np.inf
    alike = distances <= most
    return pairs[alike], distances[alike].clip(0)


def crops(frames: Frames, hashes: Hashes, among: Places, most: float) -> tuple[Places, Distances]:
    """Pairs of images of which one is a crop of the other, by up to about a tenth on each side.

    Args:
        frames: (n, 64, 64) frames of fingerprints.
        hashes: (n, 11) uint64 hashes of fingerprints.
        among: (m,) indices of the images that are compared.
        most: largest distance of a pair, 1 - correlation after alignment.

    Returns:
        Pairs (p, 2), i < j and sorted, and their distances (p,).
    """
    candidates, windows = _candidates(hashes[among], CROP_BITS, windows=len(WINDOWS))
    pairs, windows = _roughly_alike(frames, among[candidates], windows)
    distances = np.full(len(pairs), np.inf)
    for place, ((whole, crop), window) in enumerate(zip(pairs.tolist(), windows.tolist(), strict=True)):
        distance = _fitted(frames[whole], frames[crop], WINDOWS[window])
        if distance <= most and not _fits_mirrored(frames[whole], frames[crop], WINDOWS[window], distance):
            distances[place] = distance
    pairs = np.sort(pairs, axis=1)
    order = np.argsort(distances, kind="stable")
    order = order[distances[order] <= most]
    _, first = np.unique(pairs[order], axis=0, return_index=True)
    return pairs[order[first]], distances[order[first]]


def _candidates(queries: Hashes, most: int, windows: int) -> tuple[Places, Places]:
    """Pairs of which a window of the first has nearly the hash of the whole second, and the windows.

    Two hashes that differ in few bits agree in some run of them. So the hashes are rotated by 4 bits repeatedly and
    sorted, which puts a hash beside those with which it shares its leading bits. Each query is compared with the 8 on
    either side, so that the work grows with n log n even if thousands are alike; ties are sorted by the hash of the
    middle window.

    Args:
        queries: (m, 11) hashes of windows, of which the first, the whole image, is compared with all.
        most: largest number of differing bits.
        windows: number of windows that are looked up.

    Returns:
        Unique pairs (p, 2) and their windows (p,).
    """
    count, hashes, middle = len(queries), queries[:, 0], queries[:, -1]
    own = np.arange(count)
    codes: list[Places] = []
    for turn in range(0, 64, _TURN):
        turned = _turned(hashes, turn)
        order = np.lexsort((middle, turned))
        turned = turned[order]
        rank = np.empty_like(own)
        rank[order] = own
        for window in range(windows):
            query = queries[:, window]
            place = rank if window == 0 else np.searchsorted(turned, _turned(query, turn))
            for step in range(-_REACH, _REACH + 1):
                other = order[(place + step).clip(0, count - 1)]
                near = (_ones(query ^ hashes[other]) <= most) & (other != own)
                codes.append((own[near] * count + other[near]) * windows + window)
        codes = [np.unique(np.concatenate(codes))]
    return np.stack([codes[0] // windows // count, codes[0] // windows % count], axis=1), codes[0] % windows


def _turned(hashes: Hashes, bits: int) -> Hashes:
    turned: Hashes = (hashes << np.uint64(bits)) | (hashes >> np.uint64(64 - bits)) if bits else hashes
    return turned


def _ones(values: Hashes) -> npt.NDArray[np.int64]:
    """Number of set bits: np.bitwise_count, which NumPy 1 lacks."""
    pairs = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    ones: npt.NDArray[np.int64] = ((eights * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)
    return ones


def with_structure(frames: Frames, among: Places) -> Places:
    """Indices of the images that are not empty."""
    deviations = [frames[among[part]].astype(np.float32).std(axis=(1, 2)) for part in _parts(len(among))]
    return among[np.concatenate([np.zeros(0), *deviations]) >= FLAT]


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _TOGETHER) for start in range(0, count, _TOGETHER))


def _normalized(frames: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Frames (n, h, w) of mean 0 and norm 1; zero if they are flat."""
    values = frames.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt(np.square(values).sum(axis=(1, 2), keepdims=True))
    values /= np.maximum(norms, 1e-6)
    return values


def _correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> Distances:
    correlation: Distances = np.einsum("nhw,nhw->n", first, second).astype(np.float64)
    return correlation


def _is_mirrored(distance: Distances, mirrored: Distances) -> npt.NDArray[np.bool_]:
    """True where images are much more alike if one is mirrored; both distances of a symmetric picture are small."""
    return mirrored < _MIRRORED * distance


def _roughly_alike(frames: Frames, pairs: Places, windows: Places) -> tuple[Places, Places]:
    """The pairs that are alike at 8 x 8, each with the window of the smallest distance."""
    distances = np.empty(len(pairs))
    whole = _sampling(0, 1)
    for window, (x0, y0, x1, y1) in enumerate(WINDOWS):
        rows, columns = _sampling(y0, y1), _sampling(x0, x1).T
        places = np.flatnonzero(windows == window)
        for part in _parts(len(places)):
            some = places[part]
            first = _normalized(rows @ frames[pairs[some, 0]].astype(np.float32) @ columns)
            second = _normalized(whole @ frames[pairs[some, 1]].astype(np.float32) @ whole.T)
            distances[some] = 1 - _correlation(first, second)
    order = np.argsort(distances, kind="stable")
    order = order[distances[order] <= _COARSE_DISTANCE]
    _, best = np.unique(pairs[order], axis=0, return_index=True)
    order = order[best]
    # only the nearest of each image, since fitting is slow
    order = order[np.lexsort((distances[order], pairs[order, 0]))]
    _, start, count = np.unique(pairs[order, 0], return_index=True, return_counts=True)
    order = order[np.arange(len(order)) - np.repeat(start, count) < _MOST_FITTED]
    return pairs[order], windows[order]


def _sampling(start: float, stop: float) -> npt.NDArray[np.float32]:
    """The matrix (8, 64) that takes means over 8 equal parts of [start, stop], fractions of 64 pixels."""
    edges = SIDE * np.linspace(start, stop, _COARSE_SIDE + 1)[:, None]
    pixels = np.arange(SIDE)
    covered = (np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)).clip(0)
    means: npt.NDArray[np.float32] = (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)
    return means


def _fits_mirrored(whole: Frames, crop: Frames, window: tuple[float, ...], distance: float) -> bool:
    x0, y0, x1, y1 = window
    mirrored = _fitted(whole, np.ascontiguousarray(crop[:, ::-1]), (1 - x1, y0, 1 - x0, y1))
    return mirrored < _MIRRORED * distance


def _fitted(whole: Frames, crop: Frames, window: tuple[float, ...]) -> float:
    """Distance of a crop from the part of the whole image that it fits best; infinite if it fits none.

    An affine map is fitted by enhanced correlation (Evangelidis and Psarakis, Parametric image alignment using enhanced
    correlation coefficient maximization, PAMI 2008), starting at a window, and rejected if it is more than a crop.
    """
    x0, y0, x1, y1 = window
    start = np.array([[x1 - x0, 0, SIDE * x0], [0, y1 - y0, SIDE * y0]], np.float32)
    try:
        correlation, fit = cv2.findTransformECC(crop, whole, start, cv2.MOTION_AFFINE, _STEPS, _ALL, 1)
    except cv2.error:  # it does not converge
        return np.inf
    (width, shear_x, left), (shear_y, height, top) = fit / [[1, 1, SIDE], [1, 1, SIDE]]
    inside = min(left, top) >= -_SLACK and max(left + width, top + height) <= 1 + _SLACK
    upright = max(abs(shear_x), abs(shear_y)) <= _MOST_SHEAR and min(width, height) >= _LEAST_KEPT
    return 1 - float(correlation) if inside and upright else np.inf
