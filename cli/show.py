"""`salpipe show`: render a gallery of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    ShardsPath,
    beside,
    cache_options,
    config_option,
    count_option,
    echo,
    json_echo,
    json_option,
    output_option,
    seed_option,
)
from saliency_pipeline.text import shown


@click.command(name="show")
@config_option
@click.argument("folder", type=ShardsPath())
@output_option("Output folder.  [default: FOLDER-gallery, beside FOLDER]", required=False)
@count_option
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Show this image; may be repeated.")
@click.option("--class", "class_name", metavar="NAME", help="Show only images of this class.")
@click.option(
    "--method",
    metavar="NAME",
    help="Show only maps of this method, named with or without its parameters.  [default: all]",
)
@click.option("--random", is_flag=True, help="Sample images at random instead of evenly over the classes.")
@seed_option("Random seed (--random).")
@cache_options
@json_option
def command(folder: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Render a gallery of overlays: a self-contained page and a contact sheet.

    FOLDER is a complete folder of shards, or one shard file. The page (gallery.html) shows image, map, label,
    prediction and score, and filters by class; contact-sheet.png shows the same images. Prints the path of the page.

    \b
    Examples:
      salpipe show shards
      salpipe show shards -o gallery --class cat --count 12
      salpipe show shards --random --seed 7
      salpipe show shards --key cat/chelsea.jpg
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.gallery.page import show

    gallery = show(folder, output or beside(folder, "gallery"), **options)
    if as_json:
        json_echo(vars(gallery))
    else:
        echo(shown(gallery.page))
