"""`salpipe convert`: export shards for other tools."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    ShardsPath,
    cache_options,
    common_options,
    echo,
    json_echo,
    output_option,
    setting_options,
    take_settings,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.conversion.config import ConvertConfig
from saliency_pipeline.text import plural, shown


@click.command()
@click.argument("shards", type=ShardsPath())
@output_option(
    "Folder of the export, or its URL on object storage; run the same command again to resume an interrupted "
    "conversion.",
    or_url=True,
)
@setting_options(ConvertConfig)
@cache_options
@common_options
def command(shards: Path, output: Path | str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Export shards for other tools: images, labels, raw maps and their provenance.

    SHARDS is a complete folder of shards, or one shard file. Formats are tar files of WebDataset, Parquet tables of
    Hugging Face datasets, and folders of PNG files. Frames become lossless PNG files, or stay JPEG files where the
    shards store these; maps are exported with their raw values. 'salpipe generate' reads all three again, and with
    --maps-from also their maps.

    \b
    Examples:
      salpipe convert shards --to webdataset -o tars
      salpipe convert shards --to parquet -o tables --split train --class cat
      salpipe convert shards --to png -o folders --method gradcam --maps-as png
      salpipe convert s3://bucket/shards --to parquet -o s3://bucket/tables
      salpipe generate tars -o again --maps-from tars
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.conversion.convert import convert

    config = take_settings(ConvertConfig, options)
    result = convert(shards, output, config, progress=TerminalProgress(quiet))
    if as_json:
        json_echo(asdict(result))
        return
    splits = ", ".join(f"{name or 'without a split'} {count:,}" for name, count in result.splits.items())
    echo(
        f"{shown(result.folder)}: {plural(result.images, 'image')} ({splits}) in {plural(result.files, 'file')}, "
        f"{result.bytes / 1e6:,.1f} MB; {plural(result.shards, 'shard')} ({result.written:,} exported now)"
    )
    echo(f"maps: {', '.join(result.methods) or 'none'}")
