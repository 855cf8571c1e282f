"""`salpipe fetch`: parse, call `saliency_pipeline.fetching.fetch`, print what came of it and what is there."""

from __future__ import annotations

from pathlib import Path

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
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown


@click.command()
@click.argument("dataset", type=click.Choice(["pubfig"]))
@click.option(
    "--list",
    "listed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="dev_urls.txt or eval_urls.txt of PubFig, any version.",
)
@output_option("Folder for the images, one below it for each person; run the same command again to go on.")
@click.option("--person", "people", multiple=True, metavar="NAME", help="Only this person; may be repeated.")
@click.option(
    "--per-person",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images a person is to have; the list is tried in its order until so many are there.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=32, show_default=True, metavar="N", help="At a time.")
@click.option(
    "--per-host",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    metavar="N",
    help="At a time from one host.",
)
@click.option(
    "--timeout",
    type=Number(0, 600, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="To connect, and between two pieces of a reply; an attempt takes ten times as long at most.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 20),
    default=3,
    show_default=True,
    metavar="N",
    help="Further attempts, with growing waits, where a failure may pass.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1, 2**30),
    default=20_000_000,
    show_default=True,
    metavar="N",
    help="The largest image that is taken.",
)
@click.option("--allow-private", is_flag=True, help="Connect also to private and loopback addresses.")
@click.option("--retry-failed", is_flag=True, help="Try also what failed for good before, such as 404.")
@click.option("--check", is_flag=True, help="Only compare what is there with the list; nothing is downloaded.")
@config_option
@json_option
@quiet_option
def command(
    dataset: str,
    listed: Path,
    output: Path,
    people: tuple[str, ...],
    per_person: int | None,
    jobs: int,
    per_host: int,
    timeout: float,
    retries: int,
    max_bytes: int,
    allow_private: bool,
    retry_failed: bool,
    check: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Download the images of a list of DATASET, which is pubfig.

    PubFig is published as a list of URLs. Many of them are dead by now: what became of each stands in fetch.jsonl,
    and the report counts what there is. An image is kept only if it is the one of the list by its md5. An interrupted
    run goes on where it was, and a later one tries again what may have passed; nothing is downloaded twice.

    \b
    Examples:
      salpipe fetch pubfig --list dev_urls.txt -o pubfig
      salpipe fetch pubfig --list dev_urls.txt -o pubfig --person "Barack Obama" --per-person 50
      salpipe fetch pubfig --list dev_urls.txt -o pubfig --check --json
      salpipe generate pubfig -o shards --layout pubfig
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.fetching.fetch import fetch
    from saliency_pipeline.fetching.presence import FEW, check_list
    from saliency_pipeline.fetching.session import Limits

    progress = TerminalProgress(quiet)
    report = None
    if not check:
        report = fetch(
            listed,
            output,
            jobs=jobs,
            per_host=per_host,
            limits=Limits(timeout=timeout, retries=retries, max_bytes=max_bytes, allow_private=allow_private),
            people=people,
            limit_per_person=per_person,
            retry_failed=retry_failed,
            progress=progress,
        )
    there = check_list(listed, output, people=people, few_below=min(FEW, per_person or FEW), progress=progress)
    for note in (report or there).notes:
        progress.note(note)
    if as_json:
        json_echo({"fetch": report.as_dict() if report else None, "presence": there.as_dict()})
    else:
        if report:
            echo(report.as_text())
        echo(there.as_text())
    if report and not report.images:
        raise SalpipeError(f"{shown(output)}: none of the images is there; fetch.jsonl in it says what became of each")
