"""`salpipe show`: render a gallery of shards, or export them for COCO tools and FiftyOne."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

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
    quiet_option,
    seed_option,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.conversion.config import CUT
from saliency_pipeline.errors import OptionError
from saliency_pipeline.text import plural, shown


@click.command(name="show")
@config_option
@click.argument("folder", type=ShardsPath())
@output_option("Output folder.  [default: FOLDER-gallery, or the name of the format, beside FOLDER]", required=False)
@count_option
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Show this image; may be repeated.")
@click.option("--class", "class_name", metavar="NAME", help="Show only images of this class.")
@click.option(
    "--method",
    metavar="NAME",
    help="Show only maps of this method, named with or without its parameters.  [default: all]",
)
@click.option(
    "--to",
    type=click.Choice(["gallery", "coco", "fiftyone"]),
    default="gallery",
    show_default=True,
    help="Output: a page; a COCO file with masks and boxes cut from the maps; or a data set of FiftyOne.",
)
@click.option(
    "--cut",
    metavar="threshold=T|otsu|percentile=P",
    help="Mask of a map (--to coco): pixels of at least T times its maximum, above Otsu's threshold, or above a "
    f"percentile.  [default: {CUT}]",
)
@click.option("--random", is_flag=True, help="Sample images at random instead of evenly over the classes.")
@seed_option("Random seed (--random).")
@cache_options
@json_option
@quiet_option
def command(
    folder: Path,
    output: Path | None,
    to: str,
    cut: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Render a gallery of overlays: a self-contained page and a contact sheet; or export for COCO tools or FiftyOne.

    FOLDER is a complete folder of shards, or one shard file. The page (gallery.html) shows image, map, label,
    prediction and score, and filters by class; contact-sheet.png shows the same images. Prints the path of the page.
    With --to coco or fiftyone, all images are written, as far as --count, --class or --key do not restrict them.

    \b
    Examples:
      salpipe show shards
      salpipe show shards -o gallery --class cat --count 12
      salpipe show shards --random --seed 7
      salpipe show shards --key cat/chelsea.jpg
      salpipe show shards --to coco --method gradcam --cut otsu -o coco
      salpipe show shards --to fiftyone -o fiftyone
    """  # noqa: D301 - click reads \b
    if cut is not None and to != "coco":
        raise OptionError(f"--cut {cut}: needs --to coco; leave it out")
    if to != "gallery":
        if click.get_current_context().get_parameter_source("count") is ParameterSource.DEFAULT:
            options["count"] = None
        from saliency_pipeline.conversion.annotate import annotate

        output, progress = output or beside(folder, to), TerminalProgress(quiet)
        result = annotate(folder, output, to, cut=cut or CUT, progress=progress, **options)
        kind = "mask" if to == "coco" else "heat map"
        line = f"{shown(result.file)}: {plural(result.images, 'image')}, {plural(result.annotations, kind)}"
        if as_json:
            json_echo(asdict(result))
        else:
            echo(line)
        return
    from saliency_pipeline.gallery.page import show

    gallery = show(folder, output or beside(folder, "gallery"), **options)
    if as_json:
        json_echo(vars(gallery))
    else:
        echo(shown(gallery.page))
