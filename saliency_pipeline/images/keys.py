"""How images are called: names of files and members as parts of keys, and the order of keys."""

from __future__ import annotations

import os
import re
import unicodedata

# part of this module's names: most readers take both from here
from saliency_pipeline.text import shown as shown

_IMAGES = (
    "jpg jpeg jpe jfif jfi jif pjpeg pjp png apng webp gif bmp dib ppm pgm pbm pnm tif tiff avif avifs heic "
    "heif hif jp2 j2k jpf jpx j2c jpc"
)
SUFFIXES = frozenset(_IMAGES.split())
"""What an image file's name ends with, in any case. What it really holds is seen when it is decoded."""

NO_ENDING = "without ending"

_NO_IMAGES = (
    "3fr arw cr2 dcr dng erf fff iiq kdc mef mos nef nrw pef raw rwl sr2 srf srw mjpeg mjpg bak crdownload "
    "download old orig part partial swp tmp"
)
UNREAD = frozenset(_NO_IMAGES.split())
"""Endings of files that may begin like an image and are none to be read: raw photographs, of which that would be the
thumbnail; films; and what editors and downloads leave beside the image itself."""

_ENDING = re.compile(r"(?=[0-9]*[A-Za-z])[A-Za-z0-9_+-]{1,12}")
_DIGITS = re.compile(r"[0-9]+")


def has_image_suffix(name: str) -> bool:
    """Whether a file is called like an image.

    >>> has_image_suffix("n01440764_10026.JPEG"), has_image_suffix("wnids.txt")
    (True, False)
    """
    return name.rpartition(".")[2].lower() in SUFFIXES


def ending_of(name: str) -> str:
    """What a file's name ends with, as files are counted by it; what only digits or odd characters follow is none.

    >>> ending_of("list.TXT"), ending_of("v1.0"), ending_of("noending")
    ('.txt', 'without ending', 'without ending')
    """
    before, _, ending = name.rpartition(".")
    return f".{ending.lower()}" if before and _ENDING.fullmatch(ending) else NO_ENDING


def key_part(name: str) -> str:
    """A file's or folder's name as valid UTF-8, different for different names."""
    if name.isascii() and "\\" not in name:
        return name
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def class_name(name: str) -> str:
    """A class's name in composed letters (NFC): file systems and editors write the same name in either form.

    Keys are not changed: they name files, and two files may differ in nothing else.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def stem(key: str) -> str:
    """The last part of a key without its suffix, if it has one.

    >>> stem("val/ILSVRC2012_val_00000001.JPEG")
    'ILSVRC2012_val_00000001'
    """
    name = key.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def natural(key: str) -> tuple[str, str]:
    """Sorts runs of digits by value and folder by folder; the key itself decides between "1" and "01".

    >>> sorted(["img10", "img2", "a/b", "a-b"], key=natural)
    ['a/b', 'a-b', 'img2', 'img10']
    """

    def by_length(digits: re.Match[str]) -> str:
        number = digits[0].lstrip("0")
        return f"{len(number):03d}{number}"

    return _DIGITS.sub(by_length, key).replace("/", "\0"), key
