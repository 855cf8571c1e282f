"""`salpipe train`: train a network on images with their saliency maps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    Number,
    Separated,
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
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.text import plural, shown
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.trackers import TRACKERS


@click.command()
@click.argument("shards", type=ShardsPath())
@output_option("Folder of the run; run the same command again to resume.")
@setting_options(TrainConfig)
@click.option(
    "--save-every",
    type=Number(min=0),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Maximum time between checkpoints.",
)
@click.option("--find-lr", is_flag=True, help="Do not train: plot loss against learning rate.")
@click.option(
    "--log",
    type=Separated(",", str),
    default=(),
    metavar="NAME[,NAME]",
    help=f"Also send the metrics of every epoch to these trackers: {', '.join(TRACKERS)}.",
)
@cache_options
@common_options
def command(
    shards: Path,
    output: Path,
    save_every: float,
    find_lr: bool,
    log: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network on images with their saliency maps.

    SHARDS is a complete folder of 'salpipe generate'. The output folder gets the options, the metrics of every epoch,
    curves, and the best and the last weights. The same command resumes a run that was interrupted; on a CPU the final
    weights are identical to the bit.

    \b
    Examples:
      salpipe train shards -o runs/half
      salpipe train shards -o runs/baseline --arch baseline --optimizer adamw --lr 3e-4 --schedule cosine --epochs 10
      salpipe train shards -o runs/full --init full --from runs/pretrained
      salpipe train shards -o runs/fold-1 --folds 5 --fold 1 --per-class 20
      salpipe train shards -o runs/half --log tensorboard,mlflow
      salpipe train shards -o lr --find-lr
      torchrun --nproc-per-node 2 -m saliency_pipeline.cli train shards -o runs/half
    """  # noqa: D301 - click reads \b
    # before the libraries are imported, which takes seconds
    check_weights(options["weights"])
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.training.find_lr import find_learning_rate
    from saliency_pipeline.training.processes import training_processes
    from saliency_pipeline.training.run import train

    find_device(options["device"])
    config = take_settings(TrainConfig, options)
    progress = TerminalProgress(quiet)
    if find_lr:
        search = find_learning_rate(shards, output, config, progress=progress)
        if as_json:
            json_echo(asdict(search))
        else:
            rate = search.suggestion
            result = f"suggested: --lr {rate:.1e}" if rate else "no learning rate reduced the loss"
            echo(f"{shown(search.picture)}: {result}")
        return
    report = train(shards, output, config, log=log, save_seconds=60 * save_every, progress=progress)
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
