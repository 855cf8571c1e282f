"""`salpipe generate`: parses options, calls `saliency_pipeline.generate`, prints the report."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    ImagesPlace,
    allow_private_option,
    cache_options,
    common_options,
    echo,
    json_echo,
    output_option,
    prints_on_stderr,
    setting_options,
    take_settings,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.cli.selection import selection_options
from saliency_pipeline.errors import TooManyRejectsError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.execution.job_array import slurm_part
from saliency_pipeline.generation.cluster import open_cluster
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.subsets.selection import Grouping
from saliency_pipeline.text import plural, shown


def part(text: str) -> tuple[int, int]:
    """`I/N`, the I-th of N slices, as (I, N) with 1 <= I <= N; `auto` is that of the SLURM job array."""
    if text == "auto":
        return slurm_part(os.environ)
    if not (match := re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)) or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{text!r} is not I/N with I from 1 to N, such as 1/8, nor auto")
    return int(match[1]), int(match[2])


def share(text: str) -> tuple[float, bool]:
    """`N%` of the images, or a number of images: the number, and whether it is a percentage."""
    if not re.fullmatch(r"[0-9]{1,9}|[0-9]{1,3}(\.[0-9]+)?%", text):
        raise click.BadParameter(f"{text!r} is neither a percentage, such as 1%, nor a number of images")
    return float(text.removesuffix("%")), text.endswith("%")


@click.command()
@click.argument("images", type=ImagesPlace())
@output_option(
    "Folder of the shards, or its URL on object storage; run the same command again to resume an interrupted run.",
    or_url=True,
)
@selection_options
@setting_options(Grouping)
@click.option(
    "--boxes",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE|FOLDER",
    help="Boxes of objects: a CSV file (file, xmin, ymin, xmax, ymax), a COCO file (JSON), or PASCAL VOC's XML files.",
)
@click.option(
    "--maps-from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Also store maps or masks that were made elsewhere, as method 'given': gray PNG or 2-D NPY files that are "
    "called as the images; or, if IMAGES is an export of 'salpipe convert', its own maps as 'given:METHOD'.",
)
@setting_options(GenerateConfig)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of worker processes on this machine, each with its share of the cores. One already uses all cores.",
)
@setting_options(Workers)
@click.option(
    "--shards",
    "part",
    type=part,
    metavar="I/N|auto",
    default="1/1",
    show_default=True,
    help="Write only every N-th shard from the I-th on: one task of a job array; auto: that of the SLURM job array.",
)
@click.option(
    "--max-rejects",
    type=share,
    metavar="N%|N",
    default="1%",
    show_default=True,
    help="Maximum number of unusable images; with more, the command ends with exit code 3 after all others are stored.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the number of images per split and class and the estimated cost, and explain nothing.",
)
@allow_private_option
@partial(cache_options, limited=False)
@common_options
def command(
    images: Path | str,
    output: Path | str,
    jobs: int,
    part: tuple[int, int],
    max_rejects: tuple[float, bool],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compute saliency maps of the images of a data set and store both in shards.

    IMAGES is a folder whose subfolders are the classes (inside train, val, validation or test if there are splits), or
    that holds unlabeled images; or ImageNet or PubFig in any of their usual layouts, which the documentation lists. Or
    the URL of such a folder or archive on object storage, of a file on a web server, or of a data set on the Hugging
    Face Hub, whose images are read by ranges as they are needed.
    Images that cannot be used are listed in rejects.jsonl and never stop a run. The same command resumes a run that
    was interrupted, even by a power failure.

    \b
    Examples:
      salpipe generate photos -o shards
      salpipe generate photos -o shards --model resnet50 --method gradcam --method gradient
      salpipe generate photos -o shards --method layercam --layer blocks.2 --layer blocks.4
      salpipe generate photos -o shards --method smoothgrad:samples=50,noise=0.2 --method smoothgrad
      salpipe generate photos -o shards --target top:3 --precision fp32
      salpipe generate photos -o shards --split 72/18/10 --dedupe drop-conflicts
      salpipe generate patients -o shards --split 72/18/10 --group-by 'patient[0-9]+'
      salpipe generate imagenet -o shards --num-classes 100 --per-class 50 --dry-run
      salpipe generate ILSVRC2012_img_train.tar -o shards --classes 'n0208*' --classes tench
      salpipe generate photos -o shards --boxes boxes.csv --maps-from masks
      salpipe generate photos -o shards --shards 3/16      (one task of a job array)
      salpipe generate photos -o shards --engine dask --address tcp://10.0.0.1:8786
      salpipe generate photos -o s3://bucket/shards
      salpipe generate s3://bucket/imagenet -o shards
      salpipe generate https://example.org/photos.tar -o shards
      salpipe generate hf://datasets/org/birds@main -o shards
    """  # noqa: D301 - click reads \b
    config, grouping = take_settings(GenerateConfig, options), take_settings(Grouping, options)
    workers = take_settings(Workers, options)
    # before the libraries are imported, which takes seconds
    check_weights(config.weights)
    progress = TerminalProgress(quiet)
    options |= {"grouping": grouping, "progress": progress}
    if dry_run:
        from saliency_pipeline.generation import outline

        with prints_on_stderr():
            outlined = outline.dry_run(images, output, config, **options)
        json_echo(asdict(outlined)) if as_json else echo(outlined.as_text())
        return
    with prints_on_stderr(), ExitStack() as stack:
        if workers.engine != "loky":
            # workers that are started import the libraries at the same time
            options["cluster"] = stack.enter_context(open_cluster(workers, jobs, config.device, progress.note))
        from saliency_pipeline.generation import run

        report = run.generate(images, output, config, jobs=jobs, part=part, workers=workers, **options)
    if as_json:
        json_echo(asdict(report))
    else:
        state = "complete" if report.complete else "this part is complete; others are not"
        echo(
            f"{shown(report.folder)}: {plural(report.images, 'image')} in {plural(report.shards, 'shard')} "
            f"({report.written:,} written now), {report.rejects:,} rejected; {state}"
        )
        if report.images_per_second:
            speed = f"{report.images_per_second:,.1f} images/s, {report.backend} {report.precision}"
            echo(f"{run.with_names(report.layers)}; {speed}; {report.seconds:,.1f} s in total")
    limit, percent = max_rejects
    planned = report.images + report.rejects
    if report.rejects > (limit * planned / 100 if percent else limit):
        raise TooManyRejectsError(
            f"{report.rejects:,} of {planned:,} images were rejected, more than --max-rejects "
            f"{limit:g}{'%' if percent else ''}: see rejects.jsonl in {output}; all others are stored"
        )
