"""`salpipe models`: list source models."""

from __future__ import annotations

from dataclasses import asdict

import click

from saliency_pipeline.cli.options import echo, json_echo, json_option


@click.command()
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List source models whose names match PATTERN ('*' for all); by default a recommended few.

    The weights column shows whether the weights are present (embedded, cached) or need a download. The shortcut
    column shows whether Grad-CAM needs no backward pass, which is checked numerically when the model is loaded.

    One's own network needs no entry: --model also takes package.module:function, a function that returns the network,
    and hf-hub:OWNER/NAME or local-dir:FOLDER, networks that timm has saved.

    \b
    Examples:
      salpipe models
      salpipe models 'resnet*'
      salpipe models 'torchvision/*' --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.models.source.registry import list_sources

    sources = list_sources(pattern)
    if as_json:
        json_echo({"models": [asdict(source) for source in sources]})
        return
    rows = [("name", "library", "weights", "size", "shortcut")]
    rows += [(s.name, s.library, s.weights, str(s.size or "?"), s.closed_form) for s in sources]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not sources:
        echo(f"salpipe: no model matches {pattern!r}", err=True)
    if pattern is None:
        echo("\nMore: salpipe models 'resnet*', salpipe models 'torchvision/*', salpipe models '*'", err=True)
