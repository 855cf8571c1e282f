"""Frame of all HTML pages: the environment of their templates, and how a page is written.

Every page extends `base.html`, which brings the policy that a page loads nothing from outside, and `base.css`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from saliency_pipeline.files import write_atomically
from saliency_pipeline.text import plural

NONE = "–"
"""Shown where a value does not exist."""


def environment(package: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Environment:
    """Environment of a package's templates, which may extend those of this package; values are escaped.

    There are the filters `plural` (3 groups), `thousands` (1,200) and `p` (< 0.001) besides those passed.
    """

    def source(name: str) -> str | None:
        paths = [files(each) / name for each in (package, __package__)]
        return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)

    templates = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"plural": plural, "thousands": "{:,}".format, "p": p_value} | dict(filters or {})
    return templates


def write_page(path: Path, templates: Environment, name: str, **values: object) -> Path:
    """Render a template to a page that needs no other file, write it atomically and return its path.

    Raises:
        SalpipeError: the file cannot be written.
    """
    # names in other people's files may hold what UTF-8 cannot encode
    write_atomically(path, templates.get_template(name).render(**values).encode("utf-8", "replace"))
    return path


def p_value(value: float | None) -> str:
    """A p value with three decimals; none is 0.

    >>> p_value(0.0321), p_value(1e-9), p_value(1.0)
    ('0.032', '< 0.001', '1')
    """
    return NONE if value is None else "< 0.001" if value < 0.001 else "1" if value == 1 else f"{value:.3f}"
