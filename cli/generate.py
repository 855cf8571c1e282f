"""`salpipe generate`: parse, call `saliency_pipeline.generate`, print the report."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saliency_pipeline.cli.options import (
    config_option,
    device_option,
    echo,
    json_echo,
    json_option,
    output_option,
    quiet_option,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.cli.selection import selection_options
from saliency_pipeline.errors import TooManyRejectsError
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.text import shown

if TYPE_CHECKING:
    from saliency_pipeline.datasets.layout import ReadOptions
    from saliency_pipeline.subsets.duplicates import Policy
    from saliency_pipeline.subsets.select import Selection


def part(text: str) -> tuple[int, int]:
    """`I/N`, the I-th of N slices, as (I, N) with 1 <= I <= N."""
    if not (match := re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)) or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{text!r} is not I/N with I from 1 to N, such as 1/8")
    return int(match[1]), int(match[2])


def share(text: str) -> tuple[float, bool]:
    """`N%` of the images, or a number of images, as that number and whether it is a percentage."""
    if not re.fullmatch(r"[0-9]{1,9}|[0-9]{1,3}(\.[0-9]+)?%", text):
        raise click.BadParameter(f"{text!r} is neither a percentage, such as 1%, nor a number of images")
    return float(text.removesuffix("%")), text.endswith("%")


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@output_option("Folder for the shards; run the same command again to go on where it stopped.")
@selection_options
@click.option(
    "--dedupe",
    "policy",
    type=click.Choice(["keep-first", "drop-conflicts"]),
    help="Leave out duplicates, exact and near: keep the first of each group, and of groups whose labels differ it or "
    "none. 'salpipe audit' shows them.",
)
@click.option(
    "--group-duplicates/--no-group-duplicates",
    "together",
    default=None,
    help="Look for duplicates and keep them together: in new splits, and in the folds of train and compare.  [default: "
    "with --split]",
)
@click.option(
    "--group-by",
    metavar="REGEX|FILE|level:N",
    help="Keep images of one person, scene or patient together: in new splits, and in the folds of train and compare. "
    "Groups are named by what REGEX matches in the images' keys, by a table FILE with the columns key and group, or by "
    "the N-th folder of the keys.",
)
@click.option("--model", default="efficientnet_lite0", show_default=True, help="Source model; see 'salpipe models'.")
@click.option(
    "--weights",
    default="default",
    show_default=True,
    metavar="default|none|PATH",
    help="Its weights: pretrained, random, or a file: .safetensors, or a checkpoint of torch.save.",
)
@click.option("--layer", metavar="NAME", help="Explained layer.  [default: the last one that carries the whole signal]")
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("gradcam",),
    show_default=True,
    help="gradcam, gradient or gradient-smilkov; give it again for several in one pass.",
)
@click.option(
    "--target",
    default="predicted",
    show_default=True,
    metavar="predicted|label|top:K|CLASS",
    help="Explained class of the source model: the predicted one, the image's own label (for looking at maps; 'salpipe "
    "train' refuses them), the K highest, or one class for all by index, WordNet id or name.",
)
@click.option(
    "--size",
    type=click.IntRange(1, 1 << 14),
    metavar="PIXELS",
    help="Side of the square frame in pixels.  [default: the source model's own]",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "squash"]),
    default="crop",
    show_default=True,
    help="How an image becomes square: center crop of the short side, padding of the long one, or distortion.",
)
@click.option(
    "--encoding",
    type=click.Choice(["raw", "jpeg"]),
    default="raw",
    show_default=True,
    help="How frames are stored: raw reads fastest, jpeg is a tenth of the size.",
)
@click.option("--jpeg-quality", type=click.IntRange(1, 100), metavar="1-100", default=95, show_default=True)
@click.option(
    "--shard-size", type=click.IntRange(min=1), metavar="N", default=1024, show_default=True, help="Images a shard."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto measures and takes bf16 where it is faster and keeps the maps.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "compile", "openvino"]),
    default="auto",
    show_default=True,
    help="What runs the network up to the explained layer.",
)
@device_option
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Frames computed together.  [default: 2 or 16 on a CPU, 32 or 64 on a GPU]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Worker processes, each with its share of the cores. One already uses all cores.",
)
@click.option(
    "--shards",
    "part",
    type=part,
    metavar="I/N",
    default="1/1",
    show_default=True,
    help="Write only every N-th shard from the I-th on: one slice of a job array.",
)
@click.option(
    "--max-rejects",
    type=share,
    metavar="N%|N",
    default="1%",
    show_default=True,
    help="More unusable images than this end the command with exit code 3, after all others are stored.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    default=128_000_000,
    show_default=True,
    help="Maximum pixels per image, half of that for WebP and a third for JPEG 2000, whose decoders take more "
    "memory; larger images are rejected unread.",
)
@click.option("--dry-run", is_flag=True, help="Say which images would be explained, and explain none.")
@config_option
@json_option
@quiet_option
def command(
    images: Path,
    output: Path,
    layout: str,
    reading: ReadOptions,
    selection: Selection,
    policy: Policy | None,
    together: bool | None,
    group_by: str | None,
    shard_size: int,
    jobs: int,
    part: tuple[int, int],
    max_rejects: tuple[float, bool],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Explain the images of a data set and store each beside its saliency maps.

    IMAGES is a folder whose subfolders are the classes (below train, val, validation or test where there are such), or
    that holds unlabeled images; or ImageNet or PubFig in any of their usual shapes, which the documentation lists.
    Images that cannot be used are listed in rejects.jsonl and never stop a run. A run that was interrupted, even by a
    power cut, goes on when the same command is given again.

    \b
    Examples:
      salpipe generate photos -o shards
      salpipe generate photos -o shards --model resnet50 --method gradcam --method gradient
      salpipe generate photos -o shards --target top:3 --precision fp32
      salpipe generate photos -o shards --split 72/18/10 --dedupe drop-conflicts
      salpipe generate patients -o shards --split 72/18/10 --group-by 'patient[0-9]+'
      salpipe generate imagenet -o shards --num-classes 100 --per-class 50 --dry-run
      salpipe generate ILSVRC2012_img_train.tar -o shards --classes 'n0208*' --classes tench
      salpipe generate photos -o shards --shards 3/16      (one task of a job array)
    """  # noqa: D301 - click reads \b
    # before the libraries are imported, which takes seconds
    check_weights(options["weights"])
    from saliency_pipeline.datasets.nesting import refuse_among_images, refuse_nesting
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.folders import check_output
    from saliency_pipeline.generation.outline import check_options, outline, refusal
    from saliency_pipeline.generation.plan import Request
    from saliency_pipeline.generation.resolve import check_model, checked
    from saliency_pipeline.generation.run import generate
    from saliency_pipeline.models.source.source import check_source
    from saliency_pipeline.saliency.methods import find_methods
    from saliency_pipeline.subsets.classes import check_files
    from saliency_pipeline.subsets.grouping import check_rule
    from saliency_pipeline.subsets.prepare import prepare
    from saliency_pipeline.text import plural

    progress = TerminalProgress(quiet)
    refuse_nesting(images, output)
    refuse_among_images(output, images)
    # before images are listed, which may take minutes
    request = checked(Request(shard_size=shard_size, **options))
    check_source(request.model, request.weights)
    find_methods(request.methods)
    check_files(selection.classes, images)
    if group_by is not None:
        check_rule(group_by)
    if not dry_run:
        check_output(output)
        find_device(request.device)
        check_options(output, request)
        check_model(request)
    catalogue = prepare(
        images,
        layout,
        reading,
        selection,
        policy=policy,
        together=together,
        group_by=group_by,
        cache=output / "fingerprints",
        progress=progress,
    )
    if dry_run:
        found = outline(catalogue, shard_size)
        refused = refusal(catalogue, found, output, request)
        if refused:
            progress.note(f"without --dry-run this is refused: {refused}")
        found = replace(found, refused=refused)
        json_echo(asdict(found)) if as_json else echo(found.as_text())
        return
    report = generate(catalogue, output, request, jobs=jobs, part=part, progress=progress)
    if as_json:
        json_echo(asdict(report))
    else:
        state = "complete" if report.complete else "this slice is done; others are not"
        echo(
            f"{shown(report.folder)}: {plural(report.images, 'image')} in {plural(report.shards, 'shard')} "
            f"({report.written:,} written now), {report.rejects:,} rejected; {state}"
        )
        if report.images_per_second:
            speed = f"{report.images_per_second:,.1f} images/s, {report.backend} {report.precision}"
            echo(f"layer {report.layer}; {speed}; {report.seconds:,.1f} s in all")
    limit, percent = max_rejects
    planned = report.images + report.rejects
    if report.rejects > (limit * planned / 100 if percent else limit):
        raise TooManyRejectsError(
            f"{report.rejects:,} of {planned:,} images were rejected, more than --max-rejects "
            f"{limit:g}{'%' if percent else ''}: see rejects.jsonl in {output}; all others are stored"
        )
