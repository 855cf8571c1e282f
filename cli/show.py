"""`salpipe show`: a page and a contact sheet of what shards hold."""

from __future__ import annotations

from pathlib import Path

import click

from saliency_pipeline.cli.options import (
    beside,
    config_option,
    echo,
    json_echo,
    json_option,
    output_option,
    seed_option,
)
from saliency_pipeline.text import shown


@click.command(name="show")
@config_option
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@output_option("Where the gallery goes; by default beside FOLDER, as FOLDER-gallery.", required=False)
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=48, show_default=True, help="The most images.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Show this image; may be repeated.")
@click.option("--class", "class_name", metavar="NAME", help="Show images of this class only.")
@click.option("--method", metavar="NAME", help="Show the maps of this method only.  [default: all that are stored]")
@click.option("--random", is_flag=True, help="Draw the images instead of spreading them evenly over the classes.")
@seed_option("Of --random: the same seed draws the same images.")
@json_option
def command(
    folder: Path,
    output: Path | None,
    count: int,
    keys: tuple[str, ...],
    class_name: str | None,
    method: str | None,
    random: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Draw a gallery of overlays: a page that needs nothing else, and a contact sheet.

    FOLDER is a finished folder of shards, or one shard file. The page (gallery.html) shows image and map, label,
    prediction and score, and filters by class; contact-sheet.png is a picture of the same images. Prints where the
    page is.

    \b
    Examples:
      salpipe show shards
      salpipe show shards -o gallery --class cat --count 12
      salpipe show shards --random --seed 7
      salpipe show shards --key cat/chelsea.jpg
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.gallery.page import show

    gallery = show(
        folder,
        output or beside(folder, "gallery"),
        count=count,
        keys=keys,
        class_name=class_name,
        method=method,
        random=random,
        seed=seed,
    )
    if as_json:
        json_echo(vars(gallery))
    else:
        echo(shown(gallery.page))
