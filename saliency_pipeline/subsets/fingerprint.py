"""Fingerprints of images: hash of the file, perceptual hashes and a 64 x 64 frame, 4 KB per image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import PAD_VALUE, Stored, fit_frame
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.images.remote_record import is_remote, need
from saliency_pipeline.progress import Progress
from saliency_pipeline.remote.ahead import reading_ahead
from saliency_pipeline.subsets.fingerprint_cache import FingerprintCache
from saliency_pipeline.workers import usable_cores

SIDE = 64
"""Side of the frame in pixels."""

WINDOWS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *((x, y, x + 0.9, y + 0.9) for y in (0.0, 0.05, 0.1) for x in (0.0, 0.05, 0.1)),
    (0.1, 0.1, 0.9, 0.9),
)
"""Regions of an image that are hashed: x0, y0, x1, y1 as fractions. The first is the whole image; the others are close
to any crop by up to a tenth on each side."""

ROW = np.dtype([("sha256", "u1", 32), ("hashes", "<u8", len(WINDOWS)), ("frame", "u1", (SIDE, SIDE))])
"""Dtype of the fingerprint of one image, see `fingerprint`."""

VERSION = 1
"""Increased whenever the fingerprint of an image changes, so that older caches are not used."""

_TOGETHER = 512
_BORDER_LEVELS = 2.0
"""Mean deviation from the gray of padding, in gray levels, up to which a row or column belongs to the border."""
_FLUSH_ROWS, _FLUSH_SECONDS = 4096, 30.0

Row = npt.NDArray[Any]


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a catalogue's n images, in its order.

    Attributes:
        sha256: (n, 32) uint8, hash of each file's bytes.
        hashes: (n, 11) uint64, a perceptual hash per window of `WINDOWS`; (0, 11) if only bytes were hashed.
        frames: (n, 64, 64) uint8, the images in gray; (0, 64, 64) if only bytes were hashed.
        readable: (n,) bool; the other arrays are zero where it is False.
        reasons: why an image is not readable, by its index in the catalogue.
    """

    sha256: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]
    frames: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.readable)


def fingerprint(data: bytes) -> Row:
    """The fingerprint of one image file.

    The frame is the whole image, upright, squashed to 64 x 64, in gray, and slightly blurred (sigma 0.8 pixels), so
    that frames of two copies can be aligned by fractions of a pixel. Color is ignored: a copy in black and white is a
    copy. The perceptual hashes are those of imagehash.phash (signs of the 64 lowest frequencies
    of the discrete cosine transform, http://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html).

    Returns:
        A scalar array of dtype `ROW`.

    Raises:
        BadImageError: the image cannot be decoded.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.linear_gradient("L").save(file, "png")
        >>> row = fingerprint(file.getvalue())
        >>> int(row["frame"][0, 0]) < int(row["frame"][-1, 0]), row["hashes"].shape
        (True, (11,))
    """
    rgb, _ = decode_frame(data, SIDE, fit="squash")
    return _fingerprint(rgb, hashlib.sha256(data).digest())


def fingerprint_frame(pixels: npt.NDArray[np.uint8], sha256: bytes, *, padded: bool = False) -> Row:
    """The fingerprint of a decoded image, as `fingerprint` computes it from a file.

    Args:
        pixels: (h, w, 3) uint8 RGB in [0, 255].
        sha256: hash of the file that it was decoded from, 32 bytes.
        padded: remove a border of gray 128, which would make images of little contrast look alike.

    Returns:
        A scalar array of dtype `ROW`.

    Example:
        >>> row = fingerprint_frame(np.zeros((96, 96, 3), np.uint8), bytes(32))
        >>> row["frame"].shape, int(row["frame"].max())
        ((64, 64), 0)
    """
    # torch warns of arrays that cannot be written to
    pixels = np.require(_without_border(pixels) if padded else pixels, requirements="W")
    size = pixels.shape[0], pixels.shape[1]
    return _fingerprint(fit_frame(Stored(pixels, size, size, 1), SIDE, "squash", "bilinear"), sha256)


def _without_border(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image without rows and columns of padding gray at its edges; unchanged if nothing else is left."""
    deviation = np.abs(pixels.astype(np.int16) - PAD_VALUE).max(axis=2)
    # JPEG has ringing beside the image
    rows, columns = (np.flatnonzero(deviation.mean(axis=axis) > _BORDER_LEVELS) for axis in (1, 0))
    if not rows.size or not columns.size:
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()


def _fingerprint(rgb: npt.NDArray[np.uint8], sha256: bytes) -> Row:
    """The fingerprint of an image of side `SIDE`."""
    frame: npt.NDArray[np.uint8] = np.asarray(
        cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 0.8), np.uint8
    )
    row = np.zeros((), ROW)
    row["sha256"] = np.frombuffer(sha256, np.uint8)
    row["hashes"] = _hashes(frame)
    row["frame"] = frame
    return row


def _hashes(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    image = Image.fromarray(frame)
    bits = []
    for x0, y0, x1, y1 in WINDOWS:
        # phash itself resizes to 32 x 32, but only whole images
        part = image.resize((32, 32), Image.Resampling.LANCZOS, box=(SIDE * x0, SIDE * y0, SIDE * x1, SIDE * y1))
        bits.append(imagehash.phash(part).hash.ravel())
    return np.packbits(np.stack(bits), axis=1).view("<u8").ravel().astype(np.uint64)


def fingerprints(
    catalogue: Catalogue,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    bytes_only: bool = False,
    threads: int | None = None,
) -> Fingerprints:
    """Fingerprints of a catalogue's images, a few milliseconds and 4.2 KB of memory each.

    A record with a box is fingerprinted as the whole image, since that is what leaks.

    Args:
        catalogue: the images.
        cache: folder of computed fingerprints, identified by key, size and time of change of an image; created if
            missing, and updated every half minute. None for no cache.
        progress: receives progress.
        bytes_only: hash the files' bytes and decode nothing; the cache is not used.
        threads: number of threads; the number of cores by default.

    Returns:
        The fingerprints; images that cannot be read have a reason instead.

    Raises:
        SalpipeError: the cache cannot be written.
    """
    progress = progress or Progress()
    records, count = catalogue.records, len(catalogue)
    seen = 0 if bytes_only else count
    result = Fingerprints(
        np.zeros((count, 32), np.uint8),
        np.zeros((seen, len(WINDOWS)), np.uint64),
        np.zeros((seen, SIDE, SIDE), np.uint8),
        np.zeros(count, np.bool_),
        {},
    )

    def keep(place: int, row: Row) -> None:
        result.sha256[place], result.readable[place] = row["sha256"], True
        if not bytes_only:
            result.hashes[place], result.frames[place] = row["hashes"], row["frame"]

    store = FingerprintCache(cache, ROW, VERSION) if cache and not bytes_only else None
    missing = list(range(count))
    if store:
        identities = list(store.identities(records))
        cached = store.load(identities, keep)
        missing = [place for place in missing if place not in cached]

    new: list[tuple[bytes, Row]] = []
    flushed = time.monotonic()
    progress.start(count, "image", "looking at images")
    progress.advance(count - len(missing))
    try:
        for place, row in _rows(records, missing, bytes_only, threads):
            progress.advance(1)
            if isinstance(row, str):
                result.reasons[place] = row
                continue
            keep(place, row)
            if store:
                new.append((identities[place], row))
                if len(new) >= _FLUSH_ROWS or time.monotonic() - flushed > _FLUSH_SECONDS:
                    store.add(new)
                    new, flushed = [], time.monotonic()
    finally:
        progress.stop()
        # also after Ctrl-C
        if store and new:
            store.add(new)
    return result


def _rows(records: Any, places: list[int], bytes_only: bool, threads: int | None) -> Iterator[tuple[int, Row | str]]:
    """Index and fingerprint of some records in order, or the reason why there is none."""

    def row(place: int) -> Row | str:
        record: ImageRecord = records[place]
        try:
            data = record.read()
            return _bytes_hashed(data) if bytes_only else fingerprint(data)
        except BadImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        finally:
            if ahead is not None:
                ahead.done(record.key)

    with reading_ahead(is_remote(records)) as ahead, ThreadPoolExecutor(threads or usable_cores()) as pool:
        # in parts: a million waiting jobs take a gigabyte
        for start in range(0, len(places), _TOGETHER):
            some = places[start : start + _TOGETHER]
            need(ahead, (records[place] for place in some))
            yield from zip(some, pool.map(row, some), strict=True)


def _bytes_hashed(data: bytes) -> Row:
    row = np.zeros((), ROW)
    row["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    return row
