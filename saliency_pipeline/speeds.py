"""Speeds measured on this machine, remembered in the user's cache folder so that it always chooses alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from saliency_pipeline.cache import cache_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import write_atomically

logger = logging.getLogger(__name__)


def remembered_speeds(key: str, names: Sequence[str], measure: Callable[[], Sequence[float]]) -> dict[str, float]:
    """The speed of each of several ways to do one thing, measured the first time and remembered.

    Args:
        key: what is done, with what versions, on what machine.
        names: the ways to do it.
        measure: gives their speeds, in the same order and any one unit.

    Returns:
        Speed by name.
    """
    cache = cache_folder() / "speeds.json"
    known = _read_json(cache).get(key)
    if isinstance(known, dict) and all(isinstance(known.get(name), int | float) for name in names):
        return {name: float(known[name]) for name in names}
    speeds = dict(zip(names, (float(f"{speed:.4g}") for speed in measure()), strict=True))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({**_read_json(cache), key: speeds}, indent=1, sort_keys=True) + "\n")
    except (OSError, SalpipeError) as error:
        logger.info("speeds are not remembered: %s", error)
    return speeds


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
