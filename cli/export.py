"""`salpipe export`: parse, call `saliency_pipeline.evaluation.export`, say what the model takes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from saliency_pipeline.cli.options import OutputPath, config_option, echo, json_echo, json_option, quiet_option
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import shown


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OutputPath(path_type=Path),
    required=True,
    metavar="FILE.onnx",
    help="The file to write; one that is there is replaced.",
)
@click.option(
    "--opset",
    type=click.IntRange(min=18),
    default=18,
    show_default=True,
    metavar="N",
    help="Version of the ONNX operators.",
)
@config_option
@json_option
@quiet_option
def command(run: Path, output: Path, opset: int, as_json: bool, quiet: bool) -> None:
    """Write a trained network as an ONNX model, and check that it answers as PyTorch does.

    RUN is a folder of 'salpipe train', whose best network is taken, or the file of a network. The model takes RGB
    images in [0, 1] and, where the network needs them, maps brought to the images' size and normalized as in training;
    images are normalized inside. Classes, method and normalization are in its metadata. Needs the extra 'onnx'.

    \b
    Examples:
      salpipe export runs/half -o half.onnx
      salpipe export runs/half -o half.onnx --opset 21 --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.evaluation.export import export

    found = export(run, output, opset=opset, progress=TerminalProgress(quiet))
    if as_json:
        json_echo(asdict(found))
        return
    inputs = ", ".join(f"{name} ({shape})" for name, shape in found.inputs.items())
    echo(f"{shown(found.file)}: {inputs} to logits (N x {found.classes}), opset {found.opset}")
    echo(f"differs from PyTorch by at most {found.error:.1e} of the range of the logits")
