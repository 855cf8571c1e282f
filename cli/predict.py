"""`salpipe predict`: classify images with a trained network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    LocalPath,
    batch_size_option,
    beside,
    common_options,
    count_option,
    device_option,
    echo,
    json_echo,
    output_option,
    prints_on_stderr,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import shown

NAMED = 8
"""Maximum number of classes that are listed by name."""


@click.command()
@click.argument("images", type=LocalPath())
@click.option(
    "--run",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    metavar="RUN",
    help="Folder of 'salpipe train', of which the best network is used, or a network file.",
)
@output_option("Output folder.  [default: IMAGES-predictions, beside IMAGES]", required=False)
@click.option(
    "--weights",
    metavar="PATH",
    help="Weights of the source model, if they were read from a file; or the source run, if it has moved.",
)
@click.option(
    "--target",
    type=click.Choice(["predicted"]),
    help="Explain the predicted class, although the run was trained on maps of the images' labels.",
)
@count_option
@batch_size_option
@device_option
@common_options
def command(images: Path, run: Path, output: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Classify images with a trained network.

    IMAGES is one image, or a folder of any depth, whose subfolders are not taken as labels. Maps are computed as for
    training; those of a network that needs none come from the network itself. Writes predictions.csv,
    predictions.json, gallery.html and contact-sheet.png, and keeps the shards. Images that cannot be used are listed in
    shards/rejects.jsonl. The same command resumes after an interruption.

    \b
    Examples:
      salpipe predict photos --run runs/half
      salpipe predict photos/chelsea.jpg --run runs/baseline -o chelsea --json
      salpipe predict photos --run runs/half --weights resnet50.safetensors --count 12
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.evaluation.predict import predict
    from saliency_pipeline.text import plural

    find_device(options["device"])
    output = output or beside(images, "predictions")
    with prints_on_stderr():
        result = predict(images, run, output, progress=TerminalProgress(quiet), **options)
    if as_json:
        json_echo(asdict(result))
        return
    echo(f"{shown(result.folder)}: {plural(result.images, 'image')} classified, {result.rejects:,} rejected")
    counts = [f"{shown(name)} {images:,}" for name, images in list(result.classes.items())[:NAMED]]
    more = len(result.classes) - len(counts)
    echo(", ".join(counts) + (f" and {more:,} more class{'es'[: 2 * (more > 1)]}" if more else ""))
    echo(shown(result.page))
