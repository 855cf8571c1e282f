"""Which format a file's bytes are, and what opens them: the content decides, never the name."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import cast

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.magic import FIRST_BYTES, format_of
from saliency_pipeline.signatures import mistaken

NAMES = "JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, HEIC or JPEG 2000"
"""What can be read, for messages."""

SCAN, MAX_SCANS = b"\xff\xda", 100
"""Passes over all of its pixels that a JPEG may ask of its decoder; files in use have at most some twenty."""

MAX_VALUES = 2**24
"""Values of channels in a PPM file that are decoded one by one: those in text, and of a range other than 0 to 255."""

_HEAD = 512
_MAX_PPM_HEADER, _MAX_PPM_COMMENTS = 2**16, 1000
_PPM_HEADER = re.compile(rb"P(?:[14](?:G[0-9]+){2}|[2356](?:G[0-9]+){3})\s".replace(b"G", rb"(?:\s|#[^\r\n]*[\r\n])+"))

WEIGHTS = {"WEBP": 2, "JPEG 2000": 3}
"""How many times as much memory a format's decoder needs for a pixel as the others, which need at most 10 bytes."""

_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW = 1, 2, 999
_ALPHA_SAMPLES = (_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW)
_EXTRA_SAMPLES_TAG, _PLANAR_TAG = 338, 284
_CHANNELS_TAG = 277
_UNREAD_CHANNELS = ("unknown pixel mode", "unknown data organization", "Invalid value for samples per pixel")
_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323


class JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose EXIF block Pillow does not parse: it would look for the dpi and warn about damaged blocks."""

    def getexif(self) -> Image.Exif:
        """Nothing; `orientation.orientation` reads the block itself."""
        return Image.Exif()

    def has_scans(self, data: bytes) -> bool:
        """Whether the pixels come in several passes, which the decoder keeps in memory at full size.

        Raises:
            BadImageError: so many that a small file would keep its decoder busy for minutes.
        """
        assert self.fp is not None
        # The one scan of an ordinary JPEG has all components; whatever else is in such a file is never decoded.
        first = data.rfind(SCAN, 0, self.fp.tell())
        if "progressive" not in self.info and data[first + 4 : first + 5] == bytes([self.layers]):
            return False
        # In compressed data 0xFF is followed by 0 or by the number of a restart.
        if (scans := data.count(SCAN, first)) > MAX_SCANS:
            raise BadImageError(f"a JPEG of {scans:,} scans; at most {MAX_SCANS} are decoded")
        return True


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file that Pillow leaves as it is stored: not turned upright, associated alpha not divided out."""

    premultiplied = False

    def _open(self) -> None:
        try:
            super()._open()
        except (IndexError, SyntaxError) as error:
            # of channels that are planes each, Pillow looks for the place of one that it does not know
            unread = isinstance(error, IndexError) or str(error) in _UNREAD_CHANNELS
            if unread and self.tag_v2.get(_CHANNELS_TAG, 1) > 1:
                raise BadImageError("a TIFF with a layout of channels that Pillow does not read") from None
            raise
        self._size = self._tile_size
        # Pillow undoes the product with alpha, which loses colors where alpha is 0. With separate planes libtiff's
        # decoder does so, and cannot be asked not to.
        kept = not (self.use_load_libtiff and self.tag_v2.get(_PLANAR_TAG, 1) == 2)
        if kept and self.tag_v2.get(_EXTRA_SAMPLES_TAG, ())[:1] == (_ASSOCIATED,):
            self.premultiplied = True
            self._mode = self.mode.replace("a", "A")
            self.tile = [
                tile._replace(args=(tile.args[0].replace("a", "A"), *tile.args[1:]))  # type: ignore[index]
                for tile in self.tile
            ]

    @property
    def tile_size(self) -> tuple[int, int]:
        """Width and height of a tile, which is decoded whole and may be larger than the image; (1, 1) without tiles."""
        return self.tag_v2.get(_TILE_WIDTH_TAG, 1), self.tag_v2.get(_TILE_LENGTH_TAG, 1)

    def load_end(self) -> None:
        """Pillow would turn the image, and read tags that nobody needs, some of them damaged."""


class PpmFile(PpmImagePlugin.PpmImageFile):
    """A PBM, PGM or PPM file in which nothing keeps Pillow's reader, which goes byte by byte, busy for minutes."""

    def _open(self) -> None:
        data = cast(BytesIO, self.fp).getvalue()
        if not _PPM_HEADER.match(data, 0, _MAX_PPM_HEADER):
            raise BadImageError("damaged PPM (its header is cut short or longer than that of any image)")
        super()._open()
        values = self.width * self.height * len(self.getbands())
        if self.tile[0][0] != "raw" and values > MAX_VALUES:
            raise BadImageError(f"{values:,} values in text or of more or less than 8 bits; at most {MAX_VALUES:,}")
        if data[1:2] in b"123" and data.count(b"#") > _MAX_PPM_COMMENTS:
            raise BadImageError(f"a PPM of more than {_MAX_PPM_COMMENTS:,} comments")


Opener = Callable[[BytesIO], ImageFile.ImageFile]

_OPENERS: dict[str, Opener] = {
    "JPEG": JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "PPM": PpmFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}


def find_format(data: bytes) -> tuple[str, Opener]:
    """Name and opener of the format of a file's bytes.

    The openers are Pillow's readers, called directly and not through `Image.open`: no other of its parsers can ever
    run, and the size limit is ours alone.

    Raises:
        BadImageError: it is none that can be read, or not without something that is not installed.
    """
    name = format_of(data[:FIRST_BYTES])
    if name is None and data.startswith(b"BM"):
        name = "BMP"  # somebody calls it an image, so that two letters are enough
    if name is None:
        raise BadImageError(mistaken(data[:_HEAD], "an image") or f"not an image that can be read ({NAMES})")
    if name == "AVIF":
        return name, _avif_opener()
    if name in ("HEIC", "HEIF"):
        return name, _heif_opener()
    return name, _OPENERS[name]


def _avif_opener() -> Opener:
    if not features.check("avif"):
        raise BadImageError("reading AVIF needs Pillow 11.3 or later, built with libavif; pip install -U pillow")
    from PIL import AvifImagePlugin

    return AvifImagePlugin.AvifImageFile


def _heif_opener() -> Opener:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise BadImageError("reading HEIC needs the extra heic; pip install 'saliency-pipeline[heic]'") from None
    opener: Opener = HeifImageFile
    return opener


def has_alpha(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether a channel beyond the colors, if an image has one, is said to be alpha.

    Satellites' and scanners' files have channels that mean something else, near infrared for instance.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(_EXTRA_SAMPLES_TAG, (0,))[:1] in [(kind,) for kind in _ALPHA_SAMPLES]
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        # Channel definitions: their number, and for each its index, its type (1 or 2 for opacity) and its place.
        start = data.find(b"cdef", 0, max(0, data.find(b"jp2c")))
        count = int.from_bytes(data[start + 4 : start + 6], "big") if start >= 0 else 0
        types = (data[start + 8 + 6 * index : start + 10 + 6 * index] for index in range(min(count, 8)))
        return any(kind in (b"\0\1", b"\0\2") for kind in types)
    return True
