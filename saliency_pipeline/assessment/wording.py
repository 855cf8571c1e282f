"""Names of methods and numbers as reports and figures write them."""

from __future__ import annotations

from collections.abc import Sequence

from saliency_pipeline.figures.pages import NONE

_MOST_NAMES = 4


def base_name(method: str) -> str:
    """Name of a method without its parameters.

    >>> base_name("smoothgrad:noise=0.15,samples=25")
    'smoothgrad'
    """
    return method.partition(":")[0]


def short_labels(methods: Sequence[str]) -> dict[str, str]:
    """Unique short names of methods by canonical name.

    >>> list(short_labels(["rise:cells=7,samples=100", "gradcam:relu=true"]).values())
    ['rise', 'gradcam']
    >>> list(short_labels(["rise:cells=7,samples=100", "rise:cells=7,samples=500"]).values())
    ['rise samples=100', 'rise samples=500']
    """
    parameters = {method: method.partition(":")[2].split(",") for method in methods}
    labels = {}
    for method in methods:
        others = [parameters[other] for other in methods if base_name(other) == base_name(method)]
        own = [item for item in parameters[method] if item and not all(item in other for other in others)]
        labels[method] = " ".join([base_name(method), ",".join(own)]).rstrip()
    return labels


def number(value: float | None) -> str:
    """A value with three decimals, or three digits if it is large, with a typographic minus.

    >>> number(0.41234), number(-0.0001), number(1234.6), number(None)
    ('0.412', '0.000', '1235', '–')
    """
    if value is None:
        return NONE
    size = abs(value)
    text = f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: all, or the first and the number of the others."""
    if len(names) > _MOST_NAMES:
        return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
