"""`salpipe train`: parse, call `saliency_pipeline.train`, print the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    Number,
    config_option,
    echo,
    json_echo,
    json_option,
    output_option,
    quiet_option,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.cli.training import augmentations, learning_options, network_options
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.text import shown


@click.command()
@click.argument("shards", type=click.Path(exists=True, path_type=Path))
@output_option("Folder of the run; run the same command again to go on where it stopped.")
@click.option(
    "--arch",
    type=click.Choice(["baseline", "modulated", "learned"]),
    default="modulated",
    show_default=True,
    help="baseline: plain transfer. modulated: a second branch reads the map. learned: it reads the image instead.",
)
@click.option(
    "--init",
    type=click.Choice(["scratch", "half", "full"]),
    default="half",
    show_default=True,
    help="First weights: all drawn; the backbone pretrained and the rest drawn; or all but the head from --from.",
)
@click.option(
    "--fusion",
    type=click.Choice(["multiply-skip", "neutral", "multiply", "add", "concat", "input"]),
    default="multiply-skip",
    show_default=True,
    help="How branches are fused: rgb*sal + alpha*rgb, rgb*(1 + tanh(zero(sal))) with a 1x1 convolution that is 0 at "
    "first, rgb*sal, rgb + sal, a 1x1 convolution of both, or the map as a fourth channel.",
)
@network_options
@click.option(
    "--maps",
    type=click.Choice(["own", "mismatched", "mismatched-same-class", "center-prior", "uniform", "shuffled-pixels"]),
    default="own",
    show_default=True,
    help="own: each image's map. The others are controls: the map of another image, of another image of the same "
    "class, a Gaussian at the center, 1 everywhere, or the image's own map with its cells shuffled.",
)
@click.option("--folds", type=int, metavar="K", help="Split into K stratified folds instead of the shards' own splits.")
@click.option("--fold", type=int, metavar="I", help="The fold that validates, from 1 to K.")
@click.option("--per-class", type=int, metavar="K", help="Train on at most K images a class: scarce data.")
@click.option("--limit", type=int, metavar="N", help="Train on at most N images.")
@click.option(
    "--inner-split",
    is_flag=True,
    help="Train on four fifths of the training images and validate on the rest, to choose options without the images "
    "of the fold.",
)
@learning_options("Of the folds; with the fold, of the first weights, the order and the augmentations.")
@click.option(
    "--save-every",
    type=Number(min=0),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="The most training that a kill can cost.",
)
@click.option("--find-lr", is_flag=True, help="Do not train: try rising learning rates and draw how the loss answers.")
@click.option("--tensorboard", is_flag=True, help="Also write scalars for TensorBoard.")
@config_option
@json_option
@quiet_option
def command(
    shards: Path,
    output: Path,
    augment: tuple[str, ...],
    save_every: float,
    find_lr: bool,
    tensorboard: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network on pairs of image and saliency map.

    SHARDS is a folder that 'salpipe generate' finished. The run keeps its options, the metrics of every epoch,
    curves, and the best and last weights in the output folder. A run that was interrupted goes on when the same
    command is given again, and on a CPU ends with the same weights to the bit.

    \b
    Examples:
      salpipe train shards -o runs/half
      salpipe train shards -o runs/baseline --arch baseline --optimizer adamw --lr 3e-4 --schedule cosine --epochs 10
      salpipe train shards -o runs/full --init full --from runs/pretrained
      salpipe train shards -o runs/fold-1 --folds 5 --fold 1 --per-class 20
      salpipe train shards -o lr --find-lr
      torchrun --nproc-per-node 2 -m saliency_pipeline.cli train shards -o runs/half
    """  # noqa: D301 - click reads \b
    # before the libraries are imported, which takes seconds
    check_weights(options["weights"])
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.text import plural
    from saliency_pipeline.training.config import TrainConfig
    from saliency_pipeline.training.find_lr import find_learning_rate
    from saliency_pipeline.training.processes import training_processes
    from saliency_pipeline.training.run import train

    find_device(options["device"])
    config = TrainConfig(augment=augmentations(augment), **options)
    progress = TerminalProgress(quiet)
    if find_lr:
        found = find_learning_rate(shards, output, config, progress=progress)
        if as_json:
            json_echo(asdict(found))
        else:
            said = f"--lr {found.suggestion:.1e} is worth a try" if found.suggestion else "no rate made the loss fall"
            echo(f"{shown(found.picture)}: {said}")
        return
    report = train(shards, output, config, tensorboard=tensorboard, save_seconds=60 * save_every, progress=progress)
    if not training_processes().leading:
        return
    if as_json:
        json_echo(asdict(report))
    else:
        best = report.best
        ended = "stopped early" if report.stopped_early else "complete"
        echo(
            f"{shown(report.folder)}: {plural(report.epochs, 'epoch')}, {ended}; best is epoch {best.epoch}: "
            f"validation top-1 {best.validation_top1:.1%}, macro F1 {best.validation_macro_f1:.3f}"
        )
        echo(f"{report.precision}, {report.seconds:,.0f} s in all; curves are in {shown(output / 'curves.png')}")
