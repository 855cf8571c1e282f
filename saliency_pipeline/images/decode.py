"""From the bytes of an image file to one square RGB frame. Which files there are stands in the catalogue readers."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch.nn import functional

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.images.record import Box

FITS = ("crop", "pad", "squash")
"""How an image that is no square becomes a square frame; `decode_frame` says what each does."""

INTERPOLATIONS = ("bilinear", "bicubic")
"""The resampling kernels, both anti-aliased."""

DEFAULT_MAX_PIXELS = 128_000_000
"""Width times height above which an image is refused: beyond nearly all cameras', and decoded in 1 to 2 GB."""

PAD_VALUE = 128
"""The grey level around a padded image. Mid-grey is near 0 after any usual normalisation, black is an edge."""

_BAND = 3
"""How many times as long as wide an image may be and still be resized whole before its centre is cut out."""

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323
_PHOTOMETRIC_TAG, _BITS_TAG = 262, 258

# EXIF orientation: whether rows and columns change places, and which of the two then run backwards.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Pixels = npt.NDArray[np.uint8]


class _Stored(NamedTuple):
    """An image as its file holds it, before it is turned upright.

    Attributes:
        pixels: (h, w, 3) RGB.
        size: (height, width) according to the file; a multiple of (h, w) where a JPEG was decoded at a fraction.
        extent: the rows and columns of `pixels` that the image covers: a fraction of a JPEG may end within a pixel.
        orientation: as in EXIF, 1 to 8.
    """

    pixels: Pixels
    size: tuple[int, int]
    extent: tuple[float, float]
    orientation: int


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose EXIF block Pillow does not parse: it would look for the dpi and warn about damaged blocks."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


# The readers are called directly, not through Image.open: no other of Pillow's parsers can ever run, and the size
# limit is ours alone.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _JpegFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    (re.compile(rb"(?:II|MM)(?:[*+]\0|\0[*+])"), TiffImagePlugin.TiffImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
)


def decode_frame(
    data: bytes,
    size: int,
    *,
    fit: str = "crop",
    interpolation: str = "bilinear",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    box: Box | None = None,
) -> tuple[Pixels, tuple[int, int]]:
    """Decodes an image file and fits its first frame, or a region of it, into a square.

    The content decides what the file is, never its name: JPEG, PNG, WebP, GIF, TIFF or BMP. The EXIF orientation is
    applied. CMYK, grey, palette, 1-bit and 16-bit images become 8-bit RGB (of 16 bits the upper 8); what is
    transparent is laid over white; floating-point TIFFs must lie in [0, 1]. Colour profiles are not applied.

    `fit` says how the image, resized with anti-aliasing, becomes a square:

    - `crop`: its short side becomes `size`, then the centre is cut out, with torchvision's rounding. Of an image more
      than three times as long as wide only the middle is resized.
    - `pad`: its long side becomes `size`, centred on grey 128.
    - `squash`: both sides become `size`, whatever the proportions.

    A JPEG at least four times larger than needed is decoded at 1/2, 1/4 or 1/8 by its decoder, never below twice the
    size wanted. Thread-safe; the interpreter lock is released while pixels are decoded and resized.

    Args:
        data: the file's bytes.
        size: side S of the frame in pixels, at least 1.
        fit: one of `FITS`.
        interpolation: one of `INTERPOLATIONS`.
        max_pixels: width times height the image may have; compared with its header before any pixel is decoded.
        box: the region that is meant, in pixels of the image as its file holds it; what lies beyond the image's
            borders is not part of it. It is decoded at full resolution.

    Returns:
        The frame, (S, S, 3) uint8 RGB in [0, 255], C-contiguous and writable; and the (height, width) of the image
        in the file, upright.

    Raises:
        BadImageError: the bytes cannot be decoded in full, the image is too large, or no pixel of it lies in the box.
            The message is the reason.
        SalpipeError: `size`, `fit`, `interpolation` or `max_pixels` is none of the values above.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("RGB", (40, 30), "red").save(file, "png")
        >>> frame, source_size = decode_frame(file.getvalue(), 16)
        >>> frame.shape, source_size, frame[0, 0].tolist()
        ((16, 16, 3), (30, 40), [255, 0, 0])
    """
    if size < 1 or max_pixels < 1:
        raise SalpipeError(f"size {size} and max_pixels {max_pixels}: both must be at least 1")
    if fit not in FITS:
        raise SalpipeError(f"fit {fit!r}: use one of {', '.join(FITS)}")
    if interpolation not in INTERPOLATIONS:
        raise SalpipeError(f"interpolation {interpolation!r}: use one of {', '.join(INTERPOLATIONS)}")
    if not data:
        raise BadImageError("empty file")
    reader = next((reader for magic, reader in _READERS if magic.match(data)), None)
    if reader is None:
        raise BadImageError("not an image that can be read (JPEG, PNG, WebP, GIF, TIFF or BMP)")
    try:
        with _pillow_switches():
            stored = _decode(reader, data, size, None if box else fit, max_pixels)
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError(f"damaged {reader.format}, or too little memory to decode it") from None
    # Pillow's readers raise whatever a damaged file makes their parsing trip over: SyntaxError, struct.error,
    # zlib.error, KeyError, OverflowError ... One bad file must never stop a run, so all of them are the file's fault.
    except Exception as error:
        raise BadImageError(f"damaged or unsupported {reader.format} ({_one_line(error)})") from None
    height, width = stored.size
    if box:
        stored = _cut(stored, box)
    return _fit(stored, size, fit, interpolation), (width, height) if stored.orientation >= 5 else (height, width)


_switches_lock = threading.Lock()
_decoding = 0
_found = (False, Image.MAX_IMAGE_PIXELS)


@contextlib.contextmanager
def _pillow_switches() -> Iterator[None]:
    """Makes Pillow refuse truncated files and leave the size limit to us, whatever the host program told it.

    Pillow has these two switches only process-wide. The first thread in sets them, the last one out puts back what
    was found, so that a file's fate depends on the file alone and the host program finds its settings untouched.
    """
    global _decoding, _found
    with _switches_lock:
        if _decoding == 0:
            _found = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
        _decoding += 1
    try:
        yield
    finally:
        with _switches_lock:
            _decoding -= 1
            if _decoding == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _found


def _decode(reader: type[ImageFile.ImageFile], data: bytes, size: int, fit: str | None, max_pixels: int) -> _Stored:
    """All of a file's first frame, a large JPEG at the fraction that suffices for the frame wanted, if one is told."""
    image = reader(BytesIO(data))
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    extent: tuple[float, float] = height, width
    if isinstance(image, _JpegFile):
        if fit is not None:
            resized_height, resized_width = _resized_size(height, width, size, fit)
            drafted = image.draft(None, (2 * resized_width, 2 * resized_height))
            if drafted is not None:
                extent = drafted[1][3], drafted[1][2]
        if image.size == (width, height) and (pixels := _plain_jpeg(image, data)) is not None:
            return _Stored(pixels, (height, width), extent, _exif_orientation(image.info.get("exif", b"")))
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be larger than its image, and is decoded whole.
        _check_pixels(image.tag_v2.get(_TILE_WIDTH_TAG, 1), image.tag_v2.get(_TILE_LENGTH_TAG, 1), max_pixels)
    image.load()
    # A TIFF keeps its orientation in a tag of its own, and Pillow has already turned it upright.
    return _Stored(np.array(_rgb(image)), (height, width), extent, _exif_orientation(image.info.get("exif", b"")))


def _plain_jpeg(image: _JpegFile, data: bytes) -> Pixels | None:
    """A colour JPEG without the two copies Pillow makes of its pixels; None where Pillow has to say what is wrong.

    Both decode with libjpeg-turbo and its exact transform: the pixels are the same.
    """
    if image.mode != "RGB":
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImageError(f"{width} x {height} pixels are more than the limit of {max_pixels} (--max-pixels)")


def _exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, an EXIF block gives; 1 where it gives none or is damaged."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(tiff[at : at + length], order)

    first = number(4, 4) + 2
    for entry in range(first, min(first + 12 * number(first - 2, 2), len(tiff)), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if value in _TURNS else 1
    return 1


def _rgb(image: ImageFile.ImageFile) -> Image.Image:
    """A loaded image of any mode as 8-bit RGB, laid over white where it is transparent."""
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _eight_bits(image: ImageFile.ImageFile) -> Pixels:
    """The grey values (h, w) of an image with more than 8 bits a pixel."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode == "I":
        raise BadImageError("signed or 32-bit integer pixels: which value is white is not known")
    if image.mode == "F":
        # A NaN fails this comparison too.
        if not (values.min() >= 0 and values.max() <= 1):
            raise BadImageError("floating-point pixels outside [0, 1]: which value is white is not known")
        grey = np.round(values * 255).astype(np.uint8)
    else:
        grey = (values >> (tags.get(_BITS_TAG, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC_TAG) == 0:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey


def _one_line(error: Exception) -> str:
    """What went wrong in a file, as one short printable line that is the same in every process."""
    # Pillow wraps what went wrong while it read a header: SyntaxError(IndexError("..."))
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    text = " ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "object", str(cause)).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
    return f"{type(cause).__name__}: {printable}" if printable else type(cause).__name__


def _resized_size(height: int, width: int, size: int, fit: str) -> tuple[int, int]:
    """The (height, width) to which an image is resized before it is cropped or padded."""
    short, long = min(height, width), max(height, width)
    if fit == "squash" or short == long:
        return size, size
    if fit == "crop":
        other = int(size * long / short)
        return (size, other) if height < width else (other, size)
    other = max(1, round(size * short / long))
    return (other, size) if height < width else (size, other)


def _cut(stored: _Stored, box: Box) -> _Stored:
    """The part of an image, decoded at full size, that lies in the box."""
    height, width = stored.pixels.shape[:2]
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if left >= right or top >= bottom:
        raise BadImageError(f"its box {', '.join(map(str, box))} lies outside the {width} x {height} image")
    pixels = stored.pixels[top:bottom, left:right]
    return _Stored(pixels, (bottom - top, right - left), (bottom - top, right - left), stored.orientation)


def _fit(stored: _Stored, size: int, fit: str, interpolation: str) -> Pixels:
    """An image as an upright frame (S, S, 3), see `decode_frame`."""
    pixels, (height, width), extent, orientation = stored
    short, long = min(pixels.shape[:2]), max(pixels.shape[:2])
    if fit == "crop" and long > _BAND * short:
        # Resizing all of a 1 x 100,000 image would take 15 GB. The parity keeps the middle in the middle.
        band = _BAND * short + (long - _BAND * short) % 2
        pixels = _centre(pixels, min(pixels.shape[0], band), min(pixels.shape[1], band))
        extent = height, width = pixels.shape[:2]
    resized = _resize(pixels, extent, *_resized_size(height, width, size, fit), interpolation)
    turned, rows_backwards, columns_backwards = _TURNS[orientation]
    upright = resized.transpose(1, 0, 2) if turned else resized
    upright = upright[:: -1 if rows_backwards else 1, :: -1 if columns_backwards else 1]
    if fit == "pad":
        frame = np.full((size, size, 3), PAD_VALUE, np.uint8)
        _centre(frame, *upright.shape[:2])[:] = upright
        return frame
    return np.ascontiguousarray(_centre(upright, size, size))


def _centre(pixels: Pixels, height: int, width: int) -> Pixels:
    """A view of the middle, with the rounding of torchvision's CenterCrop."""
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _resize(pixels: Pixels, extent: tuple[float, float], height: int, width: int, interpolation: str) -> Pixels:
    """The first `extent` rows and columns of an image (h, w, 3), resized with anti-aliasing to (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    whole = extent == pixels.shape[:2]
    # Channels_last in every stride, the batch's too, gets torch's vectorised kernel: six times as fast as Pillow's.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(
        image,
        size=(height, width) if whole else None,
        # torch rounds the size that follows from the factors down: rounding errors must not take it below.
        scale_factor=None if whole else (height / extent[0] * (1 + 1e-9), width / extent[1] * (1 + 1e-9)),
        mode=interpolation,
        align_corners=False,
        antialias=True,
    )
    return resized[0].permute(1, 2, 0).numpy()
