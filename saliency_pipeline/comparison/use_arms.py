"""Arms of uses of maps: the options that a use stands for, and which arms have the same use with other maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from saliency_pipeline.training import config
from saliency_pipeline.training.config import OWN, TrainConfig
from saliency_pipeline.uses.networks import Architecture
from saliency_pipeline.uses.registry import find_use

Options = Mapping[str, Any]

MAP_SOURCES = ("maps", "method", "map_target", "from_baseline")
"""Options that decide which maps are read."""

MAP_OPTIONS = ("use", "fusion", "fuse_at", "alpha", "learn_alpha", "normalize", *MAP_SOURCES)
"""Options of the use of maps, which a baseline does not have."""


def use_options(text: str) -> dict[str, Any]:
    """The options that a use stands for, `NAME[:key=value,...]`.

    Raises:
        OptionError: no such use or parameter.

    >>> use_options("input")
    {'arch': 'modulated', 'init': 'half', 'fusion': 'input'}
    """
    use = find_use(text)
    own: dict[str, Any] = {"arch": use.arch, "init": "half"}
    if not isinstance(use, Architecture):
        return own | {"use": use.canonical}
    return own if use.fusion is None else own | {"fusion": use.fusion}


def listed_uses(text: str) -> tuple[str, ...]:
    """The uses of a list with commas, which also divide parameters.

    >>> listed_uses("zoom:mass=0.8,margin=0.3,mask")
    ('zoom:mass=0.8,margin=0.3', 'mask')
    """
    uses: list[str] = []
    for item in text.split(","):
        if uses and "=" in item and ":" not in item:
            uses[-1] += f",{item}"
        else:
            uses.append(item.strip())
    return tuple(uses)


def reads_maps(options: Options) -> bool:
    """True if a network with these options is trained with maps, its own or those of a control."""
    return config.reads_maps(options.get("arch", TrainConfig.arch), options.get("use"))


def is_plain(options: Options) -> bool:
    """True for plain transfer learning, without any use of maps."""
    return options.get("arch") == "baseline" and options.get("use") is None


def maps_of(options: Options) -> str:
    """The maps that an arm reads, one of `training.config.MAPS`."""
    return str(options.get("maps", OWN))


def same_use(first: Options, second: Options) -> bool:
    """True if two arms differ at most in which maps they read."""
    names = {*first, *second} - {*MAP_SOURCES, "start"}
    own, other = ({name: arm.get(name, getattr(TrainConfig, name, None)) for name in names} for arm in (first, second))
    return own == other and _start(first) == _start(second)


def _start(options: Options) -> str:
    """The start of an arm; of a pretraining of its own, below the comparison's folder, its size."""
    start = str(options.get("start") or "")
    return start if os.path.isabs(start) else os.path.dirname(start)
