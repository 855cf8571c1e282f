"""Where shards from object storage are kept on this host, and how much of them: the options --cache and --cache-size.

Both are environment variables of the process, so that its worker processes agree with it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.errors import OptionError
from saliency_pipeline.home import cache_folder

FOLDER, SIZE = "SALPIPE_CACHE", "SALPIPE_CACHE_SIZE"
"""Environment variables of folder and size."""

SUBFOLDER, SCRATCH = "shards", "scratch"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class CacheSettings:
    """Folder and limit of the cache of shards.

    Attributes:
        folder: the folder; by default `shards` in the user's cache folder.
        limit: most bytes of shards in it; None for half of what the disk has for it, so that as much is left for all
            else, however large the data set is.
    """

    folder: Path
    limit: int | None

    @classmethod
    def current(cls) -> CacheSettings:
        """The settings of this process.

        Raises:
            OptionError: the size is none.
        """
        size, folder = os.environ.get(SIZE), os.environ.get(FOLDER)
        place = Path(os.path.abspath(os.path.expanduser(folder))) if folder else cache_folder() / SUBFOLDER
        return cls(place, parse_size(size) if size else None)

    def limit_beside(self, held: int) -> int:
        """Most bytes of a cache that has `held` bytes now."""
        return (shutil.disk_usage(self.folder).free + held) // 2 if self.limit is None else self.limit


def scratch_folder(place: str, suffix: str) -> Path:
    """Folder on this host for what is not sent yet to a place on object storage, beside the cache of this process."""
    return CacheSettings.current().folder / SCRATCH / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}-{suffix}"


def parse_size(text: str) -> int:
    """A size in bytes from a number with one of the units K, M, G and T, powers of 1024.

    Raises:
        OptionError: it is none.

    >>> parse_size("200G") == 200 * 2**30, parse_size("1.5k")
    (True, 1536)
    """
    parts = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?)(?:I?B)?", text.strip().upper())
    if parts is None or not (size := int(float(parts[1]) * _UNITS[parts[2]])):
        raise OptionError(f"--cache-size {text}: not a size; use a number with K, M, G or T, such as 200G")
    return size


def shown_size(count: float) -> str:
    """A size in words.

    >>> shown_size(1536), shown_size(200 * 2**30)
    ('1.5K', '200G')
    """
    for unit in ("", "K", "M", "G"):
        if count < 1024:
            return f"{count:.1f}".removesuffix(".0") + unit
        count /= 1024
    return f"{count:.1f}".removesuffix(".0") + "T"
