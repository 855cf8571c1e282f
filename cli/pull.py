"""`salpipe pull`: download a run or shards from the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from saliency_pipeline.cli.options import common_options, echo, json_echo, output_option
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import plural, shown


@click.command()
@click.argument("source", metavar="hf://ORG/NAME[@REVISION]")
@output_option("Folder to write; run the same command again to resume an interrupted download.")
@common_options
def command(source: str, output: Path, as_json: bool, quiet: bool) -> None:
    """Download a run or shards that 'salpipe push' uploaded to the Hugging Face Hub.

    All files are of one commit, which hub.json records, and are compared with the hashes that were recorded when they
    were pushed. Files are never replaced, and nothing that is downloaded is executed. A run then works in evaluate,
    predict and explain, shards in train. If there are a model and a data set of one name, write hf://models/ORG/NAME
    or hf://datasets/ORG/NAME.

    \b
    Examples:
      salpipe pull hf://org/flowers-half -o run
      salpipe pull hf://org/flowers@v1 -o shards
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.hub.pull import pull

    pulled = pull(source, output, progress=TerminalProgress(quiet))
    if as_json:
        json_echo(asdict(pulled))
        return
    kind = "run" if pulled.kind == "model" else "shards"
    files = f"{plural(pulled.files, 'file')}, {pulled.bytes / 1e6:,.1f} MB ({pulled.fetched:,} downloaded now)"
    echo(f"{shown(pulled.folder)}: {kind} of {pulled.name}, {files}, commit {pulled.commit}; hashes match")
