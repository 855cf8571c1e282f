"""`salpipe predict`: parse, call `saliency_pipeline.evaluation.predict`, say what the images were taken for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from saliency_pipeline.cli.options import (
    batch_size_option,
    beside,
    config_option,
    device_option,
    echo,
    json_echo,
    json_option,
    output_option,
    quiet_option,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import shown

NAMED = 8
"""Classes that are named one by one."""


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--run",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    metavar="RUN",
    help="A folder of 'salpipe train', whose best network is taken, or the file of a network.",
)
@output_option("Where everything goes; by default beside IMAGES, as IMAGES-predictions.", required=False)
@click.option(
    "--weights",
    metavar="PATH",
    help="The source model's weights, where they were a file of your own; or the run that it was, if that has moved.",
)
@click.option(
    "--target",
    type=click.Choice(["predicted"]),
    help="Explain the predicted class although the run was trained on maps of the images' own labels.",
)
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=48, show_default=True, help="Gallery's images.")
@batch_size_option
@device_option
@config_option
@json_option
@quiet_option
def command(
    images: Path,
    run: Path,
    output: Path | None,
    weights: str | None,
    target: str | None,
    count: int,
    batch_size: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify plain images with a trained network.

    IMAGES is a folder, at any depth, or one image; its folders are no labels here. Maps are made as they were for
    training; a network that needs none explains the images itself. Writes predictions.csv, predictions.json,
    gallery.html and contact-sheet.png, and keeps the shards. Images that cannot be used are listed in
    shards/rejects.jsonl. The same command goes on where it was interrupted.

    \b
    Examples:
      salpipe predict photos --run runs/half
      salpipe predict photos/chelsea.jpg --run runs/baseline -o chelsea --json
      salpipe predict photos --run runs/half --weights resnet50.safetensors --count 12
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.evaluation.predict import predict
    from saliency_pipeline.text import plural

    find_device(device)
    found = predict(
        images,
        run,
        output or beside(images, "predictions"),
        weights=weights,
        target=target,
        count=count,
        batch_size=batch_size,
        device=device,
        progress=TerminalProgress(quiet),
    )
    if as_json:
        json_echo(asdict(found))
        return
    echo(f"{shown(found.folder)}: {plural(found.images, 'image')} classified, {found.rejects:,} rejected")
    named = [f"{shown(name)} {images:,}" for name, images in list(found.classes.items())[:NAMED]]
    more = len(found.classes) - len(named)
    echo(", ".join(named) + (f" and {more:,} more class{'es'[: 2 * (more > 1)]}" if more else ""))
    echo(shown(found.page))
