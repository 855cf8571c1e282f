"""`salpipe inspect`: summarize shards."""

from __future__ import annotations

from pathlib import Path

import click

from saliency_pipeline.cli.options import (
    ShardsPath,
    cache_options,
    echo,
    json_echo,
    json_option,
)


@click.command()
@click.argument("shards", type=ShardsPath())
@cache_options
@json_option
def command(shards: Path, as_json: bool) -> None:
    """Summarize SHARDS, a complete folder of shards or one shard file.

    Prints counts per class and split, sizes, how the maps were computed, statistics of scores and maps, and rejected
    images.

    \b
    Examples:
      salpipe inspect shards
      salpipe inspect shards/shard-00000.h5 --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.shards.summary import inspect

    summary = inspect(shards)
    if as_json:
        json_echo(summary.as_dict())
    else:
        echo(summary.as_text())
