"""`salpipe push`: upload a run or shards to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from saliency_pipeline.cli.options import ShardsPath, cache_options, common_options, echo, json_echo
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import plural, shown


@click.command()
@click.argument("source", type=ShardsPath(), metavar="RUN|SHARDS")
@click.argument("to", metavar="hf://ORG/NAME")
@click.option(
    "--license",
    metavar="ID",
    help="License of what is uploaded, such as apache-2.0, cc-by-4.0 or other; unknown: the card says so. Required.",
)
@click.option("--private/--public", default=True, show_default=True, help="Visibility of a new repository.")
@click.option(
    "--revision", metavar="BRANCH", help="Branch, created if it is missing.  [default: that of the repository]"
)
@click.option("--dry-run", is_flag=True, help="Send nothing: print the card, and the files with their sizes.")
@cache_options
@common_options
def command(
    source: Path,
    to: str,
    license: str | None,
    private: bool,
    revision: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Upload a run to a model of the Hugging Face Hub, or a folder of shards to a data set, with a card.

    RUN is a folder of 'salpipe train', of which the best network, options, metrics, provenance and evaluations are
    uploaded; SHARDS is a complete folder of 'salpipe generate'. Paths of this machine are left out. Files that the
    repository has already are not sent again: the same command resumes. Log in with 'hf auth login', or set HF_TOKEN.

    \b
    Examples:
      salpipe push runs/half hf://org/flowers-half --license apache-2.0 --dry-run
      salpipe push runs/half hf://org/flowers-half --license apache-2.0
      salpipe push shards hf://org/flowers --license cc-by-4.0 --public
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.hub.push import check_license, push

    check_license(license)
    progress = TerminalProgress(quiet)
    pushed = push(source, to, license=license, private=private, revision=revision, dry_run=dry_run, progress=progress)
    if as_json:
        json_echo(asdict(pushed))
        return
    total = plural(len(pushed.files), "file") + f", {sum(pushed.files.values()) / 1e6:,.1f} MB"
    if dry_run:
        echo(pushed.card)
        for name, size in pushed.files.items():
            echo(f"{size:>15,}  {shown(name)}")
        echo(f"{pushed.url}: {pushed.kind}, {total}; without --dry-run they are uploaded")
        return
    visible = "private" if pushed.private else "public"
    echo(f"{pushed.url}: {visible} {pushed.kind}, {total} ({len(pushed.sent):,} sent now), commit {pushed.commit}")
