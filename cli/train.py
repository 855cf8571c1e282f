"""`salpipe train`: parse, call `saliency_pipeline.train`, print the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import (
    config_option,
    device_option,
    json_echo,
    json_option,
    output_option,
    quiet_option,
    seed_option,
)
from saliency_pipeline.cli.progress import TerminalProgress

AUGMENTATIONS = ("crop", "flip", "colour", "none")


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
    "--backbone", default="efficientnet_lite0", show_default=True, help="What is fine-tuned; see 'salpipe models'."
)
@click.option(
    "--weights", default="default", show_default=True, metavar="default|PATH", help="The backbone's, for --init half."
)
@click.option(
    "--init",
    type=click.Choice(["scratch", "half", "full"]),
    default="half",
    show_default=True,
    help="First weights: all drawn; the backbone pretrained and the rest drawn; or all but the head from --from.",
)
@click.option(
    "--from", "start", metavar="RUN", help="The run, or file of a trained network, that --init full begins with."
)
@click.option(
    "--fusion",
    type=click.Choice(["multiply-skip", "multiply", "add", "concat", "input"]),
    default="multiply-skip",
    show_default=True,
    help="How branches become one: rgb*sal + alpha*rgb, rgb*sal, rgb + sal, a 1x1 convolution of both, or the map as a "
    "fourth channel.",
)
@click.option(
    "--fuse-at",
    default="stem",
    show_default=True,
    metavar="stem|NAME",
    help="Where: after the stem or a stage of the backbone, such as layer2.",
)
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Weight of the skip of multiply-skip.")
@click.option("--learn-alpha", is_flag=True, help="Train that weight too.")
@click.option("--method", metavar="NAME", help="Whose maps modulate.  [default: the first that the shards hold]")
@click.option(
    "--map-target", type=int, default=0, show_default=True, metavar="N", help="Which of an image's maps, from 0."
)
@click.option(
    "--normalise",
    type=click.Choice(["minmax", "max", "p99", "none"]),
    default="minmax",
    show_default=True,
    help="How every map is brought into [0, 1]; none leaves raw values.",
)
@click.option(
    "--augment",
    type=click.Choice(AUGMENTATIONS),
    multiple=True,
    default=("crop", "flip"),
    show_default=True,
    help="Drawn for every training image, for image and map alike; give it again for several.",
)
@click.option("--folds", type=int, metavar="K", help="Split into K stratified folds instead of the shards' own splits.")
@click.option("--fold", type=int, metavar="I", help="The fold that validates, from 1 to K.")
@click.option("--per-class", type=int, metavar="K", help="Train on at most K images a class: scarce data.")
@click.option("--limit", type=int, metavar="N", help="Train on at most N images.")
@click.option("--epochs", type=int, default=50, show_default=True, help="May be raised later to go on.")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Images a step, of all processes together.")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), default="sgd", show_default=True)
@click.option("--lr", type=float, default=1e-4, show_default=True, help="Highest learning rate.")
@click.option("--momentum", type=float, default=0.9, show_default=True, help="Of SGD.")
@click.option("--weight-decay", type=float, default=0.0, show_default=True, help="Not for biases and norms.")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine", "step"]),
    default="constant",
    show_default=True,
    help="How the learning rate falls.",
)
@click.option("--warmup", type=float, default=0.0, show_default=True, metavar="EPOCHS", help="Linear rise to --lr.")
@click.option("--step-epochs", type=int, default=15, show_default=True, help="Of --schedule step: epochs a step.")
@click.option("--gamma", type=float, default=0.1, show_default=True, help="Of --schedule step: factor of a step.")
@click.option("--label-smoothing", type=float, default=0.0, show_default=True)
@click.option("--clip", type=float, metavar="NORM", help="Largest norm of the gradient.")
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    default="none",
    show_default=True,
    help="balanced weighs classes by the inverse of their frequency.",
)
@click.option(
    "--freeze",
    metavar="stem|NAME|features",
    help="Keep the backbone up to a stage as it is; features: train the head (and the branch) alone.",
)
@click.option("--patience", type=int, metavar="EPOCHS", help="Stop after so many epochs without a better validation.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto measures and takes bf16 where it is faster and keeps the gradient.",
)
@device_option
@seed_option("Of the first weights, the order, the augmentations and the folds.")
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
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
    from saliency_pipeline.training.config import TrainConfig
    from saliency_pipeline.training.find_lr import find_learning_rate
    from saliency_pipeline.training.run import is_leading, train

    if "none" in augment and len(augment) > 1:
        raise click.UsageError("--augment none: leave out the others")
    config = TrainConfig(augment=() if augment == ("none",) else tuple(dict.fromkeys(augment)), **options)
    progress = TerminalProgress(quiet)
    if find_lr:
        found = find_learning_rate(shards, output, config, progress=progress)
        if as_json:
            json_echo(asdict(found))
        else:
            said = f"--lr {found.suggestion:.1e} is worth a try" if found.suggestion else "no rate made the loss fall"
            click.echo(f"{found.picture}: {said}")
        return
    report = train(shards, output, config, tensorboard=tensorboard, save_seconds=60 * save_every, progress=progress)
    if not is_leading():
        return
    if as_json:
        json_echo(asdict(report))
    else:
        best = report.best
        ended = "stopped early" if report.stopped_early else "complete"
        click.echo(
            f"{report.folder}: {report.epochs} epochs, {ended}; best is epoch {best['epoch']}: validation top-1 "
            f"{best['validation_top1']:.1%}, macro F1 {best['validation_macro_f1']:.3f}"
        )
        click.echo(f"{report.precision}, {report.seconds:,.0f} s in all; curves are in {output / 'curves.png'}")
