"""Pictures of maps: overlays on frames and contact sheets."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colormap = Literal["inferno", "magma", "viridis"]
# of growing lightness, so that what is stronger never looks weaker
_COLORMAPS: dict[Colormap, int] = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
}

# saturation and brightness of the photo behind a map, whose colors must not be mistaken for the photo's
_GRAY, _BRIGHTNESS = 0.6, 0.8
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# tried in this order if Pillow's own font lacks a letter
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msgothic.ttc",
)
_PAPER, _INK = (255, 255, 255), (28, 30, 34)
_GAP = 12


def normalize(saliency: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale one map for display: 1 is the 99th percentile of its absolute values, larger ones are clipped.

    The percentile is rounded up to a value that occurs. A class activation map of up to 100 cells is therefore divided
    by its maximum, while of a pixel gradient's few extreme values the top 1 % are clipped, as its papers display it.
    The minimum is not subtracted: 0 stays 0, so that a map without evidence looks like one.

    Args:
        saliency: (h, w), any range; values that are not finite count as 0.

    Returns:
        float32 (h, w) in [0, 1], or in [-1, 1] where the map has negative values; all 0 for an all-zero map.

    >>> normalize(np.array([[0, 1], [2, 8]], dtype=np.float32)).tolist()
    [[0.0, 0.125], [0.25, 1.0]]
    """
    values = np.asarray(saliency, dtype=np.float32)
    values = np.where(np.isfinite(values), values, np.float32(0))
    magnitude = np.abs(values)
    # where less than 1 % of a map is not zero the percentile is
    top = np.float32(np.percentile(magnitude, 99, method="higher")) or magnitude.max()
    if top == 0:
        return values
    # clipped first: a quotient by a subnormal number overflows
    return np.clip(values, -top, top) / top


def colors(values: npt.NDArray[np.float32], colormap: Colormap = "inferno") -> npt.NDArray[np.uint8]:
    """Colors of normalized values; those of a negative value are its opposite's with red and blue exchanged.

    Args:
        values: (h, w), in [-1, 1].
        colormap: name of the color map.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    level = np.rint(np.abs(values) * 255).astype(np.uint8)
    bgr = np.asarray(cv2.applyColorMap(level, _COLORMAPS[colormap]), dtype=np.uint8)
    return np.where((values < 0)[..., None], bgr, bgr[..., ::-1])


def overlay(
    image: npt.NDArray[np.uint8],
    saliency: npt.NDArray[np.float32],
    *,
    alpha: float = 0.85,
    colormap: Colormap = "inferno",
) -> npt.NDArray[np.uint8]:
    """Overlay a map on the frame that it explains.

    The map is scaled by `normalize` and enlarged bilinearly so that cell (i, j) covers exactly its part of the frame
    (half-pixel centers, `align_corners=False`). Its color is laid on in proportion to its strength, over a muted photo
    that stays readable where the map is low. Evidence against the class (negative values) is blue and cyan in the
    default colors, evidence for it red and yellow.

    Args:
        image: uint8 (S, S, 3) RGB; need not be square.
        saliency: (h, w) of any range, at its native resolution.
        alpha: how opaque the color is where the map is strongest, in [0, 1].
        colormap: "inferno", "magma" or "viridis".

    Returns:
        uint8, the image's shape; an all-zero map gives the muted photo alone.

    >>> white = np.full((4, 4, 3), 255, dtype=np.uint8)
    >>> overlay(white, np.zeros((2, 2), dtype=np.float32))[0, 0].tolist()
    [204, 204, 204]
    """
    height, width = image.shape[:2]
    scaled = normalize(saliency)
    shrinks = scaled.shape[0] > height or scaled.shape[1] > width
    resized = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    values = np.clip(np.asarray(resized, dtype=np.float32), -1, 1)
    frame = image.astype(np.float32)
    photo = _BRIGHTNESS * ((1 - _GRAY) * frame + _GRAY * (frame @ _LUMA)[..., None])
    weight = (np.float32(alpha) * np.abs(values))[..., None]
    return np.rint(photo * (1 - weight) + colors(values, colormap) * weight).astype(np.uint8)


def contact_sheet(
    tiles: Sequence[npt.NDArray[np.uint8]], columns: int, captions: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Arrange pictures in a grid with a caption under each.

    A line that is too long for its picture ends in '…'. Letters come from Pillow's own font, or from a common font of
    the system where that lacks one; a letter in none of them loses its accent or becomes '?'.

    Args:
        tiles: N pictures uint8 (h, w, 3) RGB of one size, at least one.
        columns: the most pictures side by side, at least 1.
        captions: N texts of one or more lines.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ValueError: no tiles, tiles of different sizes, or not one caption each.
    """
    if not tiles or columns < 1 or any(tile.shape != tiles[0].shape for tile in tiles):
        raise ValueError("a contact sheet needs columns, and tiles of one size")
    if len(captions) != len(tiles):
        raise ValueError(f"{len(tiles)} tiles but {len(captions)} captions")
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    size = max(9, min(14, round(width / 20)))
    # splitlines would also break at letters that fonts have no picture for
    texts = [caption.split("\n") for caption in captions]
    line = round(size * 1.4)
    step_x, step_y = width + _GAP, height + line * max(map(len, texts)) + _GAP + _GAP // 2
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        x, y = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        sheet.paste(Image.fromarray(tile), (x, y))
        for row, text in enumerate(lines):
            font, text = _drawable(text, size)
            draw.text((x, y + height + 4 + row * line), _shortened(text, font, width), fill=_INK, font=font)
    return np.asarray(sheet)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its beginning and '…', limited to a width in pixels."""
    text = text[:400]  # no picture is that wide, and names may come from strangers
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _drawable(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font and the text as that font can draw it."""
    text = "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)
    text = unicodedata.normalize("NFC", text)
    own = _font("", size)
    assert own is not None, "Pillow's own font is always there"
    for name in ("", *_SYSTEM_FONTS):
        font = _font(name, size)
        if font is not None and all(_has(name, letter) for letter in text):
            return font, text
    return own, "".join(next(c for c in (letter, _base(letter), "?") if _has("", c)) for letter in text)


def _base(letter: str) -> str:
    """A letter without its accents."""
    return unicodedata.normalize("NFKD", letter)[0]


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font of the system by its file name, or Pillow's own for the empty name; None if there is none."""
    try:
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None
    return font if isinstance(font, ImageFont.FreeTypeFont) else None


@cache
def _has(name: str, letter: str) -> bool:
    """Return whether a font has a glyph for a letter: fonts have the same box for all others."""
    font = _font(name, 24)
    if font is None or unicodedata.category(letter) in ("Cs", "Cn"):
        return False
    if letter.isspace():
        return True
    drawn, box = font.getmask(letter), font.getmask("\U0010fffe")
    return drawn.size != box.size or bytes(drawn) != bytes(box)
