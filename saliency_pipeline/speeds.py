"""Measured speeds, stored in the user's cache folder so that later runs make the same choices."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from saliency_pipeline.documents import DocumentError, read_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.home import cache_folder

logger = logging.getLogger(__name__)


def remembered_speeds(key: str, names: Sequence[str], measure: Callable[[], Sequence[float]]) -> dict[str, float]:
    """Return the speed of each of several alternatives, measured on first use and then read from the cache.

    The key has task, versions and machine; `measure` returns the speeds in the order of `names`, in any common unit.
    """
    cache = cache_folder() / "speeds.json"
    stored = _read(cache).get(key)
    if isinstance(stored, dict) and all(_is_speed(stored.get(name)) for name in names):
        return {name: float(stored[name]) for name in names}
    speeds = dict(zip(names, (float(f"{speed:.4g}") for speed in measure()), strict=True))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({**_read(cache), key: speeds}, indent=1, sort_keys=True) + "\n")
    except (OSError, SalpipeError) as error:
        logger.info("speeds not stored: %s", error)
    return speeds


def _is_speed(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value <= sys.float_info.max


def _read(path: Path) -> dict[str, object]:
    try:
        value = read_json(path)
    except (OSError, DocumentError):
        return {}
    return value if isinstance(value, dict) else {}
