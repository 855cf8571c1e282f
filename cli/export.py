"""`salpipe export`: export a trained network to ONNX."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from saliency_pipeline.cli.options import OutputPath, common_options, echo, json_echo
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.evaluation import OPSET
from saliency_pipeline.text import shown


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OutputPath(path_type=Path),
    required=True,
    metavar="FILE.onnx",
    help="Output file; an existing one is replaced.",
)
@click.option(
    "--opset",
    type=click.IntRange(min=OPSET),
    default=OPSET,
    show_default=True,
    metavar="N",
    help="ONNX opset version.",
)
@common_options
def command(run: Path, output: Path, opset: int, as_json: bool, quiet: bool) -> None:
    """Export a trained network to ONNX, and compare its logits with PyTorch's.

    RUN is a folder of 'salpipe train', of which the best network is exported, or a network file. The model takes RGB
    images in [0, 1] and, if the network reads them, maps resized to the images' size and normalized as in training;
    images are normalized inside the model. Cropping and masking (--use zoom and mask) are not part of the model but of
    preprocessing. Classes, use of maps, method and normalization are in its metadata. Requires the extra 'onnx'.

    \b
    Examples:
      salpipe export runs/half -o half.onnx
      salpipe export runs/half -o half.onnx --opset 21 --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.evaluation.export import export

    exported = export(run, output, opset=opset, progress=TerminalProgress(quiet))
    if as_json:
        json_echo(asdict(exported))
        return
    inputs = ", ".join(f"{name} ({shape})" for name, shape in exported.inputs.items())
    echo(f"{shown(exported.file)}: {inputs} to logits (N x {exported.classes}), opset {exported.opset}")
    echo(f"differs from PyTorch by at most {exported.error:.1e} of the range of the logits")
