"""`salpipe methods`: list saliency methods."""

from __future__ import annotations

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

    The level is what a method reads: the image, a layer, gradients at pixels or the network as a whole. The cost is in
    forward passes of the network, beyond the one that all methods of a run share; a gradient counts as three.
    Parameters are shown with their defaults and are set as in 'smoothgrad:samples=50,noise=0.1'. Methods of installed
    packages are listed as well. 'captum:NAME' is an attribution of captum; the pattern 'captum*' lists them.

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
    rows = [("name", "level", "cost", "parameters", "paper"), *map(_row, methods)]
    if pattern is None:
        rows.append(("captum:NAME", "network", "", "", "arXiv:2009.07896"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    notes = [f"{method.name}: equals {method.equals}" for method in methods if method.equals]
    notes += [f"{method.name}: from {method.package}" for method in methods if method.package]
    if notes:
        echo("\n" + "\n".join(notes))
    if not methods:
        echo(f"salpipe: no method matches {pattern!r}", err=True)


def _row(method: MethodInfo) -> tuple[str, ...]:
    parameters = (
        f"{name}={_text(parameter.default)}"
        for name, parameter in method.parameters.items()
        if parameter.default is not None
    )
    return method.name, method.level, f"{method.cost:g}", ",".join(parameters), method.paper


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
