"""Keys of images: suffixes, names of files as parts of keys, and natural order."""

from __future__ import annotations

import os
import re
import unicodedata

_IMAGES = (
    "jpg jpeg jpe jfif jfi jif pjpeg pjp png apng webp gif bmp dib ppm pgm pbm pnm tif tiff avif avifs heic "
    "heif hif jp2 j2k jpf jpx j2c jpc"
)
SUFFIXES = frozenset(_IMAGES.split())
"""Suffixes of image files, in lower case; the content is checked when a file is decoded."""

NO_ENDING = "without ending"

_NO_IMAGES = (
    "3fr arw cr2 dcr dng erf fff iiq kdc mef mos nef nrw pef raw rwl sr2 srf srw mjpeg mjpg bak crdownload "
    "download old orig part partial swp tmp"
)
UNREAD = frozenset(_NO_IMAGES.split())
"""Suffixes of files that may begin like an image but are not read: raw photographs, where that would be the thumbnail;
videos; and backups and partial downloads beside the image itself."""

_ENDING = re.compile(r"(?=[0-9]*[A-Za-z])[A-Za-z0-9_+-]{1,12}")
_DIGITS = re.compile(r"[0-9]+")


def has_image_suffix(name: str) -> bool:
    """True if a file has an image's suffix.

    >>> has_image_suffix("n01440764_10026.JPEG"), has_image_suffix("wnids.txt")
    (True, False)
    """
    return name.rpartition(".")[2].lower() in SUFFIXES


def ending_of(name: str) -> str:
    """Suffix of a file as used in counts; digits alone or other characters are none.

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
    """A class's name in Unicode form NFC, since file systems and editors use either form.

    Keys are not normalized: they name files, which may differ in nothing else.
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
    """Sort key for natural order, folder by folder, with digits by value; "1" is before "01".

    >>> sorted(["img10", "img2", "a/b", "a-b"], key=natural)
    ['a/b', 'a-b', 'img2', 'img10']
    """

    def by_length(digits: re.Match[str]) -> str:
        number = digits[0].lstrip("0")
        return f"{len(number):03d}{number}"

    return _DIGITS.sub(by_length, key).replace("/", "\0"), key
