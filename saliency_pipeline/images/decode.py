"""Decoding of an image file to a square RGB frame."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from types import ModuleType
from typing import NamedTuple, cast

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, PngImagePlugin

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.images.color import to_rgb
from saliency_pipeline.images.fit import FITS, INTERPOLATIONS, Pixels, Stored, cut, fit_frame, resized_size
from saliency_pipeline.images.formats import WEIGHTS, JpegFile, TiffFile, find_format, has_alpha
from saliency_pipeline.images.orientation import orientation
from saliency_pipeline.images.pixel_budget import DECODING, LARGE, return_free_memory
from saliency_pipeline.images.record import Box

DEFAULT_MAX_PIXELS = 128_000_000
"""Largest width times height of an image: more than nearly all cameras have, and decoded in about 1 GB of memory.
Pixels of formats that take more memory count more, see `formats.WEIGHTS`."""

# without handlers of the host program, Python would print Pillow's log records about single files
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        frame: (S, S, 3) uint8 RGB in [0, 255], C-contiguous and writable.
        size: (height, width) of the image in the file, upright.
        orientation: how it is stored, as in EXIF, 1 to 8.
    """

    frame: Pixels
    size: tuple[int, int]
    orientation: int


def decode_frame(
    data: bytes,
    size: int,
    *,
    fit: str = "crop",
    interpolation: str = "bilinear",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    box: Box | None = None,
) -> tuple[Pixels, tuple[int, int]]:
    """Decode an image file and fit its first frame, or a region of it, into a square; see `decode_upright`.

    Returns:
        The frame, (S, S, 3) uint8 RGB in [0, 255], C-contiguous and writable; and the (height, width) of the image
        in the file, upright.

    Raises:
        BadImageError, SalpipeError: as `decode_upright`.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("RGB", (40, 30), "red").save(file, "png")
        >>> frame, source_size = decode_frame(file.getvalue(), 16)
        >>> frame.shape, source_size, frame[0, 0].tolist()
        ((16, 16, 3), (30, 40), [255, 0, 0])
    """
    frame, upright, _ = decode_upright(data, size, fit=fit, interpolation=interpolation, max_pixels=max_pixels, box=box)
    return frame, upright


def decode_upright(
    data: bytes,
    size: int,
    *,
    fit: str = "crop",
    interpolation: str = "bilinear",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    box: Box | None = None,
) -> Decoded:
    """Decode an image file and fit its first frame, or a region of it, into a square.

    The content determines the format, not the name: see `formats.NAMES`. The orientation is applied (see
    `orientation.orientation`). CMYK, gray, palette, 1-bit and 16-bit images become 8-bit RGB (the upper 8 of 16 bits);
    transparent pixels become white, unless all are transparent; channels other than color and alpha are dropped;
    floating-point TIFFs must be in [0, 1]. Color profiles are not applied.

    `fit` is how the image, resized with anti-aliasing, becomes a square:

    - `crop`: its short side becomes `size`, then the center is cropped, with torchvision's rounding. If it is more than
      three times as long as wide, only the middle is resized.
    - `pad`: its long side becomes `size`, centered on gray 128.
    - `squash`: both sides become `size`, whatever the aspect ratio.

    A JPEG at least four times larger than needed is decoded at 1/2, 1/4 or 1/8, never below twice the needed size.
    Thread-safe; the interpreter lock is released while pixels are decoded and resized. All threads of the process share
    one budget of pixels (`pixel_budget.DECODING`), and wait if it is used up.

    Args:
        data: the file's bytes.
        size: side S of the frame in pixels, at least 1.
        fit: one of `FITS`.
        interpolation: one of `INTERPOLATIONS`.
        max_pixels: largest width times height of the image, for WebP half of it and for JPEG 2000 a third; checked
            before any pixel is decoded.
        box: region of the image, in pixels as stored in the file, clipped to the image. It is decoded at full
            resolution.

    Raises:
        BadImageError: the bytes cannot be decoded in full, the image is too large, or the box is outside the image.
            The message is the reason.
        SalpipeError: `size`, `fit`, `interpolation` or `max_pixels` is invalid.
    """
    if size < 1 or max_pixels < 1:
        raise SalpipeError(f"size {size} and max_pixels {max_pixels}: both must be at least 1")
    if fit not in FITS:
        raise SalpipeError(f"fit {fit!r}: use one of {', '.join(FITS)}")
    if interpolation not in INTERPOLATIONS:
        raise SalpipeError(f"interpolation {interpolation!r}: use one of {', '.join(INTERPOLATIONS)}")
    if not data:
        raise BadImageError("empty file")
    with ExitStack() as budget:
        return _decode(data, size, fit, interpolation, max_pixels, box, budget)


def _decode(
    data: bytes, size: int, fit: str, interpolation: str, max_pixels: int, box: Box | None, budget: ExitStack
) -> Decoded:
    """`decode_upright`; after it returns its images are freed, and `budget` can be released."""
    name, opener = find_format(data)
    with _faults_are_reasons(name), _pillow_switches():
        image = opener(BytesIO(data))
        header = _check(image, data, WEIGHTS.get(name, 1), max_pixels, None if box else (size, fit))
        budget.enter_context(DECODING.hold(header.pixels))
        if header.pixels >= LARGE:
            budget.callback(return_free_memory)
        stored = _load(image, data, header)
    height, width = stored.size
    if box:
        stored = cut(stored, box)
    frame = fit_frame(stored, size, fit, interpolation)
    return Decoded(frame, (width, height) if stored.orientation >= 5 else (height, width), stored.orientation)


def decode_gray(data: bytes, max_pixels: int) -> np.ndarray:
    """The values (h, w) of a gray PNG file, as stored: bool, uint8 or uint16; gray in three channels counts as gray.

    Its orientation is not applied, as programs that write maps set none.

    Raises:
        BadImageError: it is no PNG, damaged, larger than `max_pixels` or in color. The message is the reason.
    """
    name, opener = find_format(data)
    if name != "PNG":
        raise BadImageError(f"{name} instead of PNG")
    with _faults_are_reasons(name), _pillow_switches():
        image = opener(BytesIO(data))
        _check_pixels(*image.size, max_pixels)
        with DECODING.hold(image.width * image.height):
            image.load()
            if image.mode in ("1", "L") or image.mode.startswith("I"):
                return np.asarray(image)
            colors = np.asarray(image.convert("RGB"))
            if not ((colors[..., 0] == colors[..., 1]) & (colors[..., 0] == colors[..., 2])).all():
                raise BadImageError("in color, which has no order; save the values as gray")
            return np.ascontiguousarray(colors[..., 0])


@contextlib.contextmanager
def _faults_are_reasons(name: str) -> Iterator[None]:
    """Raise any exception of a decoder as BadImageError."""
    try:
        yield
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError(f"damaged {name}, or too little memory to decode it") from None
    # Pillow raises exceptions of all kinds for damaged files: SyntaxError, struct.error, zlib.error, KeyError ...
    # One bad file must never stop a run.
    except Exception as error:
        raise BadImageError(f"damaged or unsupported {name} ({_one_line(error)})") from None


_switches_lock = threading.Lock()
_decoding = 0
_saved: list[tuple[ModuleType, str, object]] = []
_filters: list[list[object]] = []
_TEXT_BYTES = 16 << 20
_DECODER_THREADS = (("PIL.AvifImagePlugin", "DEFAULT_MAX_THREADS"), ("pillow_heif.options", "DECODE_THREADS"))
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\.|pillow_heif\."), 0)


@contextlib.contextmanager
def _pillow_switches() -> Iterator[None]:
    """Make decoding independent of the host program's settings of Pillow.

    Truncated files are refused, the size limits are ours, warnings are neither shown nor turned into errors, and a
    decoder uses one thread. Pillow has these settings only process-wide: the first thread in sets them, the last one
    out restores those of the host program.
    """
    global _decoding
    with _switches_lock:
        if _decoding == 0:
            _set_switches()
        _decoding += 1
    try:
        yield
    finally:
        with _switches_lock:
            _decoding -= 1
            if _decoding == 0:
                _restore_switches()


def _set_switches() -> None:
    own: list[tuple[ModuleType, str, object]] = [
        (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
        (Image, "MAX_IMAGE_PIXELS", None),
        # color profiles and edit histories of more than 1 MB are rare, but no damage
        (PngImagePlugin, "MAX_TEXT_CHUNK", _TEXT_BYTES),
    ]
    for plugin, setting in _DECODER_THREADS:
        if loaded := sys.modules.get(plugin):  # imported with the first file of its kind
            own.append((loaded, setting, 1))
    _saved[:] = [(module, name, getattr(module, name)) for module, name, _ in own]
    for module, name, value in own:
        setattr(module, name, value)
    # not by warnings.filterwarnings, which is slow and invalidates the caches of all modules
    _filters.append(cast("list[object]", warnings.filters))
    _filters[0].insert(0, _QUIET)


def _restore_switches() -> None:
    for module, name, value in _saved:
        setattr(module, name, value)
    # a warnings.catch_warnings of the host program may have replaced the list meanwhile
    for filters in {id(each): each for each in (_filters.pop(), cast("list[object]", warnings.filters))}.values():
        with contextlib.suppress(ValueError):
            filters.remove(_QUIET)


class _Header(NamedTuple):
    """(height, width) in the file, extent of the decoded image, and its cost in pixels, before decoding."""

    size: tuple[int, int]
    extent: tuple[float, float]
    pixels: int


def _check(
    image: ImageFile.ImageFile, data: bytes, weight: int, max_pixels: int, frame: tuple[int, str] | None
) -> _Header:
    """Refuse images that are too large or too slow, and configure the fraction at which a large JPEG is decoded."""
    width, height = image.size
    _check_pixels(width, height, max_pixels, weight)
    extent: tuple[float, float] = height, width
    pixels = weight * width * height
    if isinstance(image, JpegFile):
        several = image.has_scans(data)
        if frame is not None:
            resized_height, resized_width = resized_size(height, width, *frame)
            drafted = image.draft(None, (2 * resized_width, 2 * resized_height))
            if drafted is not None:
                extent = drafted[1][3], drafted[1][2]
        if not several:
            pixels = image.width * image.height
    elif isinstance(image, TiffFile):
        _check_pixels(*image.tile_size, max_pixels)
        pixels = max(pixels, image.tile_size[0] * image.tile_size[1])
    return _Header((height, width), extent, pixels)


def _load(image: ImageFile.ImageFile, data: bytes, header: _Header) -> Stored:
    """Decode a file's first frame."""
    pixels = None
    if isinstance(image, JpegFile) and image.size == header.size[::-1]:
        pixels = _plain_jpeg(image, data)
    if pixels is None:
        image.load()
        pixels = to_rgb(image, alpha=has_alpha(image, data), premultiplied=getattr(image, "premultiplied", False))
    # a PNG may have its orientation after its pixels
    return Stored(pixels, header.size, header.extent, orientation(image))


def _plain_jpeg(image: JpegFile, data: bytes) -> Pixels | None:
    """Decode a color JPEG without Pillow's two copies of its pixels; None if Pillow has to report an error.

    Both decode with libjpeg-turbo and its exact transform, to the same pixels.
    """
    if image.mode != "RGB":
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _check_pixels(width: int, height: int, max_pixels: int, weight: int = 1) -> None:
    if weight * width * height > max_pixels:
        count = f", which count {weight} times in this format," if weight > 1 else ""
        raise BadImageError(f"{width} x {height} pixels{count} are more than the limit of {max_pixels} (--max-pixels)")


def _one_line(error: Exception) -> str:
    """An error of decoding as one short printable line that is the same in every process."""
    # Pillow wraps errors of reading a header: SyntaxError(IndexError("..."))
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    # representations of objects contain addresses
    text = " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", str(cause)).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
    return f"{type(cause).__name__}: {printable}" if printable else type(cause).__name__
