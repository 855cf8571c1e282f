"""Formats of image files by content, and their openers."""

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
"""Readable formats, for messages."""

SCAN, MAX_SCANS = b"\xff\xda", 100
"""Largest number of scans of a JPEG, each a pass over all of its pixels; usual files have at most twenty."""

MAX_VALUES = 2**24
"""Largest number of values in a PPM file that are decoded one by one: those in text or of more or less than 8 bits."""

_HEAD = 512
_MAX_PPM_HEADER, _MAX_PPM_COMMENTS = 2**16, 1000
_PPM_HEADER = re.compile(rb"P(?:[14](?:G[0-9]+){2}|[2356](?:G[0-9]+){3})\s".replace(b"G", rb"(?:\s|#[^\r\n]*[\r\n])+"))

WEIGHTS = {"WEBP": 2, "JPEG 2000": 3}
"""Memory per pixel of a format's decoder relative to the others, which need at most 10 bytes."""

_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW = 1, 2, 999
_ALPHA_SAMPLES = (_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW)
_EXTRA_SAMPLES_TAG, _PLANAR_TAG = 338, 284
_CHANNELS_TAG = 277
_UNREAD_CHANNELS = ("unknown pixel mode", "unknown data organization", "Invalid value for samples per pixel")
_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323


class JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose EXIF block Pillow does not parse, since it warns about damaged ones."""

    def getexif(self) -> Image.Exif:
        """Empty; `orientation.orientation` reads the block itself."""
        return Image.Exif()

    def has_scans(self, data: bytes) -> bool:
        """True if there are several scans, so that the decoder needs memory for the full size.

        Raises:
            BadImageError: there are more than `MAX_SCANS`, which would take minutes to decode.
        """
        assert self.fp is not None
        # the only scan of a baseline JPEG has all components; others in the file are never decoded
        first = data.rfind(SCAN, 0, self.fp.tell())
        if "progressive" not in self.info and data[first + 4 : first + 5] == bytes([self.layers]):
            return False
        # in compressed data 0xFF is followed by 0 or by the number of a restart
        if (scans := data.count(SCAN, first)) > MAX_SCANS:
            raise BadImageError(f"a JPEG of {scans:,} scans; at most {MAX_SCANS} are decoded")
        return True


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file that Pillow leaves as it is stored: not rotated, and associated alpha not divided out."""

    premultiplied = False

    def _open(self) -> None:
        try:
            super()._open()
        except (IndexError, SyntaxError) as error:
            # Pillow raises IndexError for an unknown number of separate planes
            unread = isinstance(error, IndexError) or str(error) in _UNREAD_CHANNELS
            if unread and self.tag_v2.get(_CHANNELS_TAG, 1) > 1:
                raise BadImageError("a TIFF with a layout of channels that Pillow does not read") from None
            raise
        self._size = self._tile_size
        # Pillow divides by alpha, which loses colors where alpha is 0. With separate planes libtiff's decoder does so
        # itself.
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
        """Width and height of a tile, which is decoded as a whole and may exceed the image; (1, 1) without tiles."""
        return self.tag_v2.get(_TILE_WIDTH_TAG, 1), self.tag_v2.get(_TILE_LENGTH_TAG, 1)

    def load_end(self) -> None:
        """Do nothing; Pillow would rotate the image and read further tags, which may be damaged."""


class PpmFile(PpmImagePlugin.PpmImageFile):
    """A PBM, PGM or PPM file without anything that would keep Pillow's bytewise reader busy for minutes."""

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

    The openers are Pillow's readers, called directly instead of by `Image.open`, so that no other parser can run and
    only our size limit applies.

    Raises:
        BadImageError: the format is unknown, or needs a package that is not installed.
    """
    name = format_of(data[:FIRST_BYTES])
    if name is None and data.startswith(b"BM"):
        name = "BMP"  # it is expected to be an image, so that two letters are enough
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
    """True if a channel beyond the colors, if there is one, is alpha, and not near infrared, for instance."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(_EXTRA_SAMPLES_TAG, (0,))[:1] in [(kind,) for kind in _ALPHA_SAMPLES]
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        # channel definitions: their number, and per channel its index, type (1 or 2 for opacity) and association
        start = data.find(b"cdef", 0, max(0, data.find(b"jp2c")))
        count = int.from_bytes(data[start + 4 : start + 6], "big") if start >= 0 else 0
        types = (data[start + 8 + 6 * index : start + 10 + 6 * index] for index in range(min(count, 8)))
        return any(kind in (b"\0\1", b"\0\2") for kind in types)
    return True
