"""How images are called: names of files and members as parts of keys, and the order of keys."""

from __future__ import annotations

import os
import re

# part of this module's names: most readers take both from here
from saliency_pipeline.text import shown as shown

SUFFIXES = frozenset({"bmp", "gif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
"""What an image file's name ends with, in any case. What it really holds is seen when it is decoded."""

_DIGITS = re.compile(r"[0-9]+")


def has_image_suffix(name: str) -> bool:
    """Whether a file is called like an image.

    >>> has_image_suffix("n01440764_10026.JPEG"), has_image_suffix("wnids.txt")
    (True, False)
    """
    return name.rpartition(".")[2].lower() in SUFFIXES


def key_part(name: str) -> str:
    """A file's or folder's name as valid UTF-8, different for different names."""
    if name.isascii() and "\\" not in name:
        return name
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def stem(key: str) -> str:
    """The last part of a key without its suffix.

    >>> stem("val/ILSVRC2012_val_00000001.JPEG")
    'ILSVRC2012_val_00000001'
    """
    return key.rpartition("/")[2].rpartition(".")[0]


def natural(key: str) -> tuple[str, str]:
    """Sorts runs of digits by value and folder by folder; the key itself decides between "1" and "01".

    >>> sorted(["img10", "img2", "a/b", "a-b"], key=natural)
    ['a/b', 'a-b', 'img2', 'img10']
    """

    def by_length(digits: re.Match[str]) -> str:
        number = digits[0].lstrip("0")
        return f"{len(number):03d}{number}"

    return _DIGITS.sub(by_length, key).replace("/", "\0"), key
