"""`salpipe models`: parse, call `saliency_pipeline.list_sources`, print a table."""

from __future__ import annotations

from dataclasses import asdict

import click

from saliency_pipeline.cli.options import echo, json_echo, json_option


@click.command()
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List source models whose name matches PATTERN ('*' for all), or a few good ones.

    The weights column says whether a model can be used now (embedded, cached) or needs a download. The shortcut
    column says whether Grad-CAM needs no backward pass; a numerical check when the model is loaded has the last word.

    \b
    Examples:
      salpipe models
      salpipe models 'resnet*'
      salpipe models 'torchvision/*' --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.models.source.registry import list_sources

    found = list_sources(pattern)
    if as_json:
        json_echo({"models": [asdict(source) for source in found]})
        return
    rows = [("name", "library", "weights", "size", "shortcut")]
    rows += [(s.name, s.library, s.weights, str(s.size or "?"), s.closed_form) for s in found]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not found:
        echo(f"salpipe: no model matches {pattern!r}", err=True)
    if pattern is None:
        echo("\nMore: salpipe models 'resnet*', salpipe models 'torchvision/*', salpipe models '*'", err=True)
