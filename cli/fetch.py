"""`salpipe fetch`: download the images of a list of URLs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from saliency_pipeline.cli.options import common_options, echo, json_echo, output_option, setting_options, take_settings
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.remote.session import Limits
from saliency_pipeline.text import shown


@click.command()
@click.argument("dataset", type=click.Choice(["pubfig"]))
@click.option(
    "--list",
    "listed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="URL list of PubFig: dev_urls.txt or eval_urls.txt, any version.",
)
@output_option("Folder for the images, with one subfolder per person; run the same command again to resume.")
@click.option("--person", "people", multiple=True, metavar="NAME", help="Download only this person; may be repeated.")
@click.option(
    "--per-person",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of images per person; the list is tried in order until they are present.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=32,
    show_default=True,
    metavar="N",
    help="Number of concurrent downloads.",
)
@click.option(
    "--per-host",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    metavar="N",
    help="Maximum concurrent downloads per host.",
)
@setting_options(Limits)
@click.option("--retry-failed", is_flag=True, help="Also retry permanent failures such as 404.")
@click.option("--check", is_flag=True, help="Only compare the folder with the list; download nothing.")
@common_options
def command(
    dataset: str,
    listed: Path,
    output: Path,
    people: tuple[str, ...],
    per_person: int | None,
    jobs: int,
    per_host: int,
    retry_failed: bool,
    check: bool,
    as_json: bool,
    quiet: bool,
    **limits: Any,
) -> None:
    """Download the images of a data set that is published as a list of URLs: pubfig.

    Many of the URLs are dead by now: fetch.jsonl records the outcome per URL, and the report counts the images that
    are present. An image is kept only if its md5 sum is that of the list. The same command resumes an interrupted run
    and later retries temporary failures; nothing is downloaded twice.

    \b
    Examples:
      salpipe fetch pubfig --list dev_urls.txt -o pubfig
      salpipe fetch pubfig --list dev_urls.txt -o pubfig --person "Barack Obama" --per-person 50
      salpipe fetch pubfig --list dev_urls.txt -o pubfig --check --json
      salpipe generate pubfig -o shards --layout pubfig
    """  # noqa: D301 - click reads \b
    allowed = take_settings(Limits, limits)
    from saliency_pipeline.fetching.fetch import fetch
    from saliency_pipeline.fetching.presence import FEW, check_list

    progress = TerminalProgress(quiet)
    report = None
    if not check:
        report = fetch(
            listed,
            output,
            jobs=jobs,
            per_host=per_host,
            limits=allowed,
            people=people,
            limit_per_person=per_person,
            retry_failed=retry_failed,
            progress=progress,
        )
    presence = check_list(listed, output, people=people, few_below=min(FEW, per_person or FEW), progress=progress)
    for note in (report or presence).notes:
        progress.note(note)
    if as_json:
        json_echo({"fetch": asdict(report) if report else None, "presence": asdict(presence)})
    else:
        if report:
            echo(report.as_text())
        echo(presence.as_text())
    if report and not report.images:
        raise SalpipeError(f"{shown(output)}: no image is present; see fetch.jsonl in it for the outcome per URL")
