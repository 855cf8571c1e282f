"""`salpipe methods`: list saliency methods."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from saliency_pipeline.cli.options import echo, json_echo, json_option, prints_on_stderr

if TYPE_CHECKING:
    from saliency_pipeline.saliency.methods.listing import MethodInfo


@click.command()
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List saliency methods whose names match PATTERN; all by default.

    The level is what a method reads: the image, a layer, attention, gradients at pixels or the network as a whole.
    The cost is in forward passes of the network, beyond the one that all methods of a run share; a gradient counts as
    three. Below, parameters are shown with their defaults and are set as in 'smoothgrad:samples=50,noise=0.1', with
    what a method equals, and its paper. Methods of installed packages are listed as well. 'captum:NAME' is an
    attribution of captum; the pattern 'captum*' lists them.

    \b
    Examples:
      salpipe methods
      salpipe methods '*cam'
      salpipe methods 'captum*'
      salpipe methods --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.saliency.methods.listing import list_methods

    with prints_on_stderr():
        methods = list_methods(pattern, lambda error: echo(f"salpipe: {error}", err=True))
    if as_json:
        json_echo({"methods": [asdict(method) for method in methods]})
        return
    rows = [("name", "level", "cost", "needs"), *map(_row, methods)]
    if pattern is None:
        rows.append(("captum:NAME", "network", "", "module"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for i, method in enumerate(methods):
        echo("\n" * (i == 0) + textwrap.fill(_note(method), 80, subsequent_indent="    ", break_on_hyphens=False))
    if not methods:
        echo(f"salpipe: no method matches {pattern!r}", err=True)


def _row(method: MethodInfo) -> tuple[str, ...]:
    return method.name, method.level, f"{method.cost:g}", ", ".join(method.needs)


def _note(method: MethodInfo) -> str:
    """Parameters, equality, paper and package of a method."""
    parameters = [f"{key}={_text(own.default)}" for key, own in method.parameters.items() if own.default is not None]
    own = ":" + ",".join(parameters) if parameters else ""
    equals = f"equals {method.equals}; " if method.equals else ""
    package = f"; from {method.package}" if method.package else ""
    return f"{method.name}{own}: {equals}{method.paper}{package}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
