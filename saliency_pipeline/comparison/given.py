"""`salpipe compare RUN RUN`: finished runs of `salpipe train` compared with one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saliency_pipeline.comparison.analysis import analyse
from saliency_pipeline.comparison.costs import measure_costs
from saliency_pipeline.comparison.grouping import grouped
from saliency_pipeline.comparison.leaks import accepted_leaks
from saliency_pipeline.comparison.output import (
    Comparison,
    maps_known,
    pictures_of,
    refuse_output,
    write_comparison,
)
from saliency_pipeline.comparison.rules import Rules
from saliency_pipeline.comparison.runs import Run, read_run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder


def compare_runs(
    runs: Sequence[Path | str], output: Path | str, *, reference: str | None = None, progress: Progress | None = None
) -> Comparison:
    """Compare runs that `salpipe train` finished; pairs are runs of one seed and fold.

    Args:
        runs: folders of runs. Those that differ in nothing but seed and fold are one arm.
        output: where `results.json`, `results.csv`, `costs.json`, `report.html` and `figures/` go.
        reference: the arm that the others are held against; by default that of a baseline, or the first.
        progress: is told what is to be kept in mind.

    Raises:
        SalpipeError: a run that is not finished, fewer than two arms, or a full disk.
    """
    folder = Path(output)
    refuse_output(folder, *runs)
    found, arms = grouped([read_run(Path(run), "", "all images") for run in runs], reference)
    named = [name for run in found if run.validation for name in (*run.validation.labels, *run.validation.predicted)]
    classes = sorted(set(named))
    plans, warnings = {run.plan for run in found}, []
    if len(plans) > 1:
        warnings.append("the runs were trained on different shards: pairs share fewer images than they seem to")
    for warning in warnings:
        (progress or Progress()).note(warning)
    pairs = _shards(found[0])
    about = {"runs": [str(run.folder) for run in found], "shards": sorted(plans)}
    rules = Rules(None, look_repeats=())
    leaks = accepted_leaks(found)
    results = analyse(found, arms, ["all images"], classes, rules=rules, about=about, warnings=warnings, leaks=leaks)
    make_output(folder)
    with FolderLock(folder, note=(progress or Progress()).note):
        costs = measure_costs(found, pairs, found[0].config, maps_known(folder))
        page = write_comparison(folder, results, costs, pictures_of(pairs, found[0].config))
    return Comparison(folder, page, len(found), 0, results)


def _shards(run: Run) -> ShardFolder | None:
    try:
        return ShardFolder(run.shards)
    except SalpipeError:
        return None  # gone, and needed for pictures alone
