"""`salpipe compare RUN RUN`: comparison of finished runs of `salpipe train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saliency_pipeline.comparison.analysis import Context, analyze
from saliency_pipeline.comparison.arms import CANDIDATE, Arm
from saliency_pipeline.comparison.arms_of_runs import grouped, other_differences
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.costs import measure_costs
from saliency_pipeline.comparison.leaks import accepted_leaks
from saliency_pipeline.comparison.output import (
    Comparison,
    known_map_costs,
    pictures_of,
    refuse_output,
    shards_of,
    write_comparison,
)
from saliency_pipeline.comparison.pairing import check_runs
from saliency_pipeline.comparison.plan_file import PLAN
from saliency_pipeline.comparison.results import Duplicates
from saliency_pipeline.comparison.rules import FINAL, Primary, Rules
from saliency_pipeline.comparison.runs import Run, read_run
from saliency_pipeline.comparison.summaries import mean_starts
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.progress import Progress
from saliency_pipeline.serialization import MismatchError, from_json
from saliency_pipeline.training.runlog import PROVENANCE

SETTING = "all images"
UNPLANNED = (
    "the runs were given by hand, and no plan fixed them beforehand: p values hold for one look at runs that were "
    "chosen without their results; where runs are added after a look, use 'salpipe compare SHARDS --looks N'"
)
"""Warning of every comparison of finished runs."""


def compare_runs(
    runs: Sequence[Path | str],
    output: Path | str,
    *,
    reference: str | None = None,
    rope: float = 1.0,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare runs that `salpipe train` finished; pairs are runs of one seed and fold.

    The primary question is the final accuracy of the first candidate, in a single look.

    Args:
        runs: folders of runs. Those that differ in seed and fold alone are one arm. Runs of a pair must have the same
            shards, folds, validation images, precision and first weights; see `pairing.check_runs`.
        output: where `results.json`, `results.csv`, `costs.json`, `report.html` and `figures/` go.
        reference: the arm that others are compared with; by default that of a baseline, or the first.
        rope: half width of the region of practical equivalence, in points.
        threshold: accuracy that was chosen beforehand for the epochs to reach it; None for the descriptive one.
        progress: receives the warnings.

    Raises:
        SalpipeError: a run that is not finished or serves to choose options, runs that are not a pair, fewer than two
            arms, or a full disk.
    """
    folder, progress = Path(output), progress or Progress()
    refuse_output(folder, *runs)
    if (folder / PLAN).exists():
        raise SalpipeError(f"{folder}: holds a planned comparison; choose another output folder")
    named, arms = grouped([read_run(Path(run), "", SETTING) for run in runs], reference)
    check_runs(named, arms)
    classes = {name for run in named if run.validation for name in (*run.validation.labels, *run.validation.predicted)}
    warnings = [UNPLANNED, *other_differences(named, arms)]
    for warning in warnings:
        progress.note(warning)
    pairs = shards_of(named[0].shards)
    origin = {
        "given": True,
        "runs": [str(run.folder) for run in named],
        "shards": sorted({run.shards_sha256 for run in named}),
    }
    context = Context(
        origin,
        warnings=tuple(warnings),
        leaks=tuple(accepted_leaks(named)),
        duplicates=_duplicates(named),
        starts=mean_starts(named),
    )
    rules = _rules(named, arms, rope, threshold)
    results = analyze(named, arms, [SETTING], sorted(classes), rules=rules, context=context)
    make_output(folder)
    with FolderLock(folder, note=progress.note):
        costs = measure_costs(named, pairs, named[0].config, known_map_costs(folder))
        page = write_comparison(folder, results, costs, pictures_of(pairs, named[0].config))
    return Comparison(folder, page, len(named), 0, results)


def _rules(runs: Sequence[Run], arms: Sequence[Arm], rope: float, threshold: float | None) -> Rules:
    """Rules of a single look at all runs."""
    first = next((arm.name for arm in arms if arm.kind == CANDIDATE), None)
    config = ComparisonConfig(
        rope=rope,
        threshold=threshold,
        folds=max(run.config.folds or 0 for run in runs),
        repeats=len({run.config.seed for run in runs}),
    )
    return Rules(None if first is None else Primary(first, FINAL, SETTING), config, planned=False)


def _duplicates(runs: Sequence[Run]) -> Duplicates:
    """Near duplicates, if they were searched for when each of the runs was trained."""
    try:
        groups = [from_json(Duplicates, read_object(run.folder / PROVENANCE).get("groups")) for run in runs]
    except MismatchError:
        groups = []
    return groups[0] if groups and all(each.searched for each in groups) else Duplicates(False, 0, 0, None)
