"""`salpipe assess`: measure the quality of stored maps and rank the methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from saliency_pipeline.assessment.config import AssessConfig
from saliency_pipeline.cli.options import (
    ShardsPath,
    beside,
    cache_options,
    common_options,
    device_option,
    echo,
    json_echo,
    output_option,
    prints_on_stderr,
    setting_options,
    take_settings,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import shown


@click.command()
@click.argument("shards", type=ShardsPath())
@output_option("Output folder.  [default: SHARDS-assessment, beside SHARDS]", required=False)
@setting_options(AssessConfig)
@click.option(
    "--weights",
    metavar="PATH",
    help="Weights of the source model, if they were read from a file; or the source run, if it has moved.",
)
@device_option
@cache_options
@common_options
def command(
    shards: Path, output: Path | None, weights: str | None, device: str, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Measure whether maps are any good, and which method is best on these images.

    SHARDS is a complete folder of shards. Metrics of the maps alone, such as the pointing game where there are boxes,
    take all images; deletion, insertion and the like ask the network that made the maps about a sample of them. The
    floors random, center-prior and edges are always in the table: a method that is not better says nothing about the
    network. Writes report.html, assess.json, per-image.csv and figures/. The same command resumes after an
    interruption.

    \b
    Examples:
      salpipe assess shards
      salpipe assess shards --method gradcam --method layercam --images 200 -o quality
      salpipe assess shards --metric pointing-game --metric srg:steps=14 --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.assessment.run import assess
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.serialization import to_json

    find_device(device)
    config, output = take_settings(AssessConfig, options), output or beside(shards, "assessment")
    with prints_on_stderr():
        result = assess(shards, output, config, weights=weights, device=device, progress=TerminalProgress(quiet))
    if as_json:
        json_echo({"folder": result.folder, "page": result.page, **to_json(result.results)})
        return
    echo(shown(result.results.verdict))
    echo(shown(result.page))
