"""Registry of uses, and parsing of uses with their parameters."""

from __future__ import annotations

import difflib

from saliency_pipeline.errors import OptionError
from saliency_pipeline.parameters import with_parameters
from saliency_pipeline.uses import attention, keep, mask, mix, networks, zoom
from saliency_pipeline.uses.use import Use

_KINDS: tuple[type[Use], ...] = (
    networks.Modulate,
    networks.Input,
    zoom.Zoom,
    mask.Mask,
    attention.AttentionLoss,
    mix.Mix,
    keep.Keep,
    networks.Pool,
)

USES = {kind.name: kind for kind in _KINDS}
"""The uses by name, in the order of `choices.USES`."""


def find_use(text: str) -> Use:
    """Parse a use as the command line has it, `NAME[:key=value,...]`.

    Raises:
        OptionError: an unknown use or parameter, or a value that is not permitted.

    >>> find_use("zoom:mass=0.8").canonical
    'zoom:margin=0.1,mass=0.8,smallest=0.2,views=1'
    """
    name, colon, items = text.partition(":")
    if name not in USES:
        close = difflib.get_close_matches(name, USES, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"choose from {', '.join(USES)}"
        raise OptionError(f"--use {text}: unknown; {remedy}")
    return with_parameters(USES[name], name, items if colon else None, "--use")
