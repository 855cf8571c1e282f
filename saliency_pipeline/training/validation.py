"""The epochs after which a run is validated (`--validate`)."""

from __future__ import annotations

import re

from saliency_pipeline.errors import OptionError

ALL = "all"


def validated_epochs(text: str, epochs: int) -> list[int]:
    """Numbers, from 1, of the epochs after which a run of `epochs` epochs is validated; the last one always is.

    Args:
        text: `all`; `every=N`, every N-th epoch; or `curve=N`, epochs 1 to N.
        epochs: number of epochs.

    Raises:
        OptionError: none of these.

    >>> validated_epochs("every=3", 8), validated_epochs("curve=3", 8)
    ([3, 6, 8], [1, 2, 3, 8])
    """
    if text == ALL:
        return list(range(1, epochs + 1))
    if (match := re.fullmatch(r"(every|curve)=([1-9][0-9]{0,8})", text)) is None:
        raise OptionError(f"--validate {text}: use all, every=N or curve=N, with a number from 1")
    number = int(match[2])
    chosen = range(number, epochs + 1, number) if match[1] == "every" else range(1, min(number, epochs) + 1)
    return sorted({*chosen, epochs})
