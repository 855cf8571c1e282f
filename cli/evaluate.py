"""`salpipe evaluate`: evaluate a trained network on shards."""

from __future__ import annotations

from pathlib import Path

import click

from saliency_pipeline.cli.options import (
    ShardsPath,
    batch_size_option,
    cache_options,
    common_options,
    device_option,
    echo,
    json_echo,
    output_option,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import shown
from saliency_pipeline.training.config import PARTS


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("shards", type=ShardsPath())
@click.option(
    "--split",
    type=click.Choice(PARTS),
    default="validation",
    show_default=True,
    help="Part to evaluate; train and validation are those of the run, of its fold if it was trained with --folds.",
)
@output_option(
    "Output folder of tables and figures.  [default: RUN/evaluation-SPLIT, with the name of SHARDS appended if the run "
    "was trained on others]",
    required=False,
)
@batch_size_option
@device_option
@cache_options
@common_options
def command(
    run: Path, shards: Path, split: str, output: Path | None, batch_size: int, device: str, as_json: bool, quiet: bool
) -> None:
    """Evaluate a trained network: accuracy, F1, calibration and predictions per image.

    RUN is a folder of 'salpipe train', of which the best network is evaluated, or a network file; SHARDS must have the
    run's classes. The best epoch was selected on the validation images, so only the test split is unbiased. Frames of
    another size than in training are accepted, with a note, if the network supports them. Writes evaluation.json,
    per-class.csv, predictions.csv, confusion.png and reliability.png.

    \b
    Examples:
      salpipe evaluate runs/half shards
      salpipe evaluate runs/half shards --split test --json
      salpipe evaluate runs/half/best.safetensors other-shards --split all -o evaluation
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.evaluation.evaluate import evaluate
    from saliency_pipeline.statistics.metrics import lowest_f1
    from saliency_pipeline.text import plural

    find_device(device)
    result = evaluate(
        run, shards, split, output, batch_size=batch_size, device=device, progress=TerminalProgress(quiet)
    )
    if as_json:
        json_echo({"folder": result.folder, **result.to_json()})
        return
    m = result.metrics
    low, high = m.intervals.top1
    echo(f"{split}: {plural(m.images, 'image')} of {plural(m.classes, 'class')}")
    echo(f"top-1 {m.top1:.1%} ({m.intervals.level:.0%} interval {low:.1%} to {high:.1%})")
    top5 = "" if m.top5 is None else f"top-5 {m.top5:.1%}, "
    echo(f"{top5}macro F1 {m.macro_f1:.3f}, ECE {m.calibration.ece:.1%}")
    if lowest := [f"{shown(row.name)} {row.f1:.2f} ({row.support})" for row in lowest_f1(m.per_class)]:
        echo(f"lowest F1 (images): {', '.join(lowest)}")
    for caveat in result.caveats:
        echo(f"note: {shown(caveat)}")
    echo(f"tables and figures are in {shown(result.folder)}")
