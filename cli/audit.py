"""`salpipe audit`: find duplicates in a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saliency_pipeline.cli.options import LocalPath, Number, beside, common_options, echo, json_echo, output_option
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.cli.selection import selection_options
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.subsets import MAX_THRESHOLD, THRESHOLD
from saliency_pipeline.text import shown

if TYPE_CHECKING:
    from saliency_pipeline.datasets.layout import ReadOptions
    from saliency_pipeline.subsets.selection import Selection


@click.command(name="audit")
@click.argument("images", type=LocalPath())
@output_option("Output folder.  [default: IMAGES-audit, beside IMAGES]", required=False)
@click.option("--exact-only", is_flag=True, help="Compare file contents only; nothing is decoded.")
@click.option(
    "--threshold",
    type=Number(0, MAX_THRESHOLD),
    default=THRESHOLD,
    show_default=True,
    metavar="D",
    help="Maximum distance of near duplicates: 1 - correlation of gray levels.",
)
@click.option("--fail-on-leak", is_flag=True, help="Exit with code 4 if duplicates are in more than one split.")
@selection_options
@common_options
def command(
    images: Path,
    output: Path | None,
    exact_only: bool,
    threshold: float,
    fail_on_leak: bool,
    layout: str,
    reading: ReadOptions,
    selection: Selection,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find duplicates, also with different labels or across splits.

    IMAGES is a data set in any layout, or a list of PubFig (dev_urls.txt), whose md5 sums are compared. Exact
    duplicates have the same bytes; near duplicates are re-encoded, rescaled or slightly cropped, but not mirrored.
    Writes duplicates.html, duplicates.csv, and a folder of fingerprints, with which the same command resumes. No image
    is changed; 'salpipe generate --dedupe' leaves duplicates out. With --split, images are split as if there were no
    duplicates, which 'salpipe generate' keeps together.

    \b
    Examples:
      salpipe audit photos
      salpipe audit imagenette2 -o audit --exact-only
      salpipe audit pubfig83 --fail-on-leak
      salpipe audit dev_urls.txt --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.datasets.pubfig_list import is_list
    from saliency_pipeline.gallery.audit import audit, audit_list
    from saliency_pipeline.subsets.prepare import prepare
    from saliency_pipeline.subsets.selection import Grouping, Selection
    from saliency_pipeline.text import plural

    output = output or beside(images, "audit")
    progress = TerminalProgress(quiet)
    listed = images.is_file() and is_list(images)
    if listed:
        if selection != Selection(seed=selection.seed):
            raise SalpipeError(f"{images}: a list is compared as a whole; leave out --classes, --split and the like")
        report = audit_list(images, output, progress=progress)
    else:
        catalogue = prepare(images, layout, reading, selection, Grouping(group_duplicates=False), progress=progress)
        report = audit(catalogue, output, threshold=threshold, exact_only=exact_only, progress=progress)
    if as_json:
        json_echo(asdict(report))
    else:
        unreadable = f", {report.unreadable:,} of them unreadable" if report.unreadable else ""
        echo(f"{shown(images)}: {plural(report.images, 'row' if listed else 'image')}{unreadable}")
        near = "near ones not searched" if report.near is None else f"{report.near:,} near"
        echo(f"{plural(report.groups, 'group')} of duplicates: {report.exact:,} exact, {near}")
        echo(
            f"{plural(report.conflicts, 'group')} with different labels"
            + (f", {report.leaks:,} across splits" if not listed else "")
            + (f"; {plural(report.leaked, 'image')} of validation or test also in training" if report.leaked else "")
        )
        echo(shown(report.page))
    if fail_on_leak and report.leaks:
        raise IntegrityError(
            f"{images}: duplicates in more than one split, {plural(report.leaks, 'group')}; leave them out "
            "(generate --dedupe keep-first) or split anew (generate --split)"
        )
