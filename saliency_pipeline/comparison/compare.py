"""`salpipe compare`: from shards, or from finished runs, to results and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.comparison.analysis import analyse
from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.costs import measure_costs
from saliency_pipeline.comparison.estimate import Estimate, choose_shared_precision, estimate
from saliency_pipeline.comparison.jobs import do_tasks
from saliency_pipeline.comparison.leaks import refuse_leaks
from saliency_pipeline.comparison.output import (
    Comparison,
    maps_known,
    pictures_of,
    refuse_output,
    write_comparison,
)
from saliency_pipeline.comparison.plan import ALL, Plan, Pretraining, Task, chosen_before, make_plan, store
from saliency_pipeline.comparison.rules import Rules
from saliency_pipeline.comparison.runs import Run, is_finished, read_run
from saliency_pipeline.devices import computes_bf16, find_device, threads_within_cores
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.images.record import Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.allocator import keep_large_blocks
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.parts import check_names, chosen_method, duplicates, labels_and_splits
from saliency_pipeline.workers import possible_jobs, usable_cores


@threads_within_cores()
def compare(
    shards: Path | str,
    output: Path | str,
    arms: Sequence[Arm],
    shared: TrainConfig | None = None,
    *,
    folds: int = 5,
    repeats: int = 2,
    per_class: Sequence[str] = (ALL,),
    pretraining: Pretraining | None = None,
    jobs: int | None = None,
    engine: str = "loky",
    address: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train every arm on every fold, and say with what confidence they differ.

    The same call goes on where an interrupted one stopped; arms, budgets and repeats may be added.

    Args:
        shards: a folder that `salpipe generate` finished. Its test split, if any, is answered once by every run.
        output: where the runs go, `results.json`, `results.csv`, `costs.json`, `report.html` and `figures/`.
        arms: what is compared; see `arms.choose_arms`.
        shared: options of every run, the article's by default.
        folds: stratified folds of all images but the test split's; 0 for the shards' own splits.
        repeats: how often folds are dealt, with other seeds.
        per_class: training images a class, `all` for all; several sweep from scarce data to plenty.
        pretraining: where the arm `full` begins.
        jobs: runs at a time; on a CPU one a core by default, on a GPU one.
        engine: `loky`, `dask` or `ray`.
        address: of a cluster's scheduler.
        progress: is told how far it is.

    Raises:
        SalpipeError: an option that cannot be, no run that could be trained, or a full disk. What is trained stays.
    """
    folder, progress, pairs = Path(output), progress or Progress(), ShardFolder(shards)
    refuse_output(folder, shards)
    keep_large_blocks()
    make_output(folder)
    with FolderLock(folder, note=progress.note):
        plan, jobs = _planned(
            pairs, folder, arms, shared or TrainConfig(), folds, repeats, per_class, pretraining, jobs, progress
        )
        if engine == "loky":
            jobs = possible_jobs(jobs, progress.note)
        store(plan, folder)
        ways: dict[str, Any] = {"threads": plan.threads, "engine": engine, "address": address, "progress": progress}
        tasks = plan.tasks(folder)
        progress.note(f"{len(tasks)} runs: {len(plan.arms)} arms, {_pairs_told(plan)}; {plan.shared.precision}")
        failed = do_tasks(plan.pretrainings(), folder, jobs=jobs, what="pretraining", **ways)
        if failed:
            raise SalpipeError(f"pretraining failed: {failed[0].error}")
        failed = do_tasks(tasks, folder, jobs=jobs, **ways)
        runs = [_read(task, folder) for task in tasks if is_finished(folder / task.folder, task.config)]
        if not runs:
            raise SalpipeError(f"no run could be trained; the first said: {failed[0].error}")
        warnings = [f"{outcome.folder} is not finished: {outcome.error}" for outcome in failed]
        about = {
            "plan": {n: v for n, v in plan.described().items() if n not in ("shards", "arms")},
            **_told(pairs, plan),
        }
        results = analyse(
            runs,
            plan.arms,
            plan.settings,
            pairs.classes,
            rules=Rules(None, repeats=plan.repeats, look_repeats=(plan.repeats,), own_split=not plan.folds),
            about=about,
            warnings=[*warnings, *leaks(pairs, plan.folds)],
            leaks=refuse_leaks(plan, folder, pairs),
        )
        costs = measure_costs(runs, pairs, plan.shared, maps_known(folder))
        page = write_comparison(folder, results, costs, pictures_of(pairs, plan.shared))
    return Comparison(folder, page, len(runs), len(failed), results)


@threads_within_cores()
def plan_only(
    shards: Path | str,
    output: Path | str,
    arms: Sequence[Arm],
    shared: TrainConfig | None = None,
    *,
    folds: int = 5,
    repeats: int = 2,
    per_class: Sequence[str] = (ALL,),
    pretraining: Pretraining | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[Task], Estimate]:
    """The runs that `compare` would train with the same arguments, and how long that takes; nothing is written."""
    pairs, folder = ShardFolder(shards), Path(output)
    refuse_output(folder, shards)
    plan, jobs = _planned(
        pairs,
        folder,
        arms,
        shared or TrainConfig(),
        folds,
        repeats,
        per_class,
        pretraining,
        jobs,
        progress or Progress(),
    )
    tasks = [*plan.pretrainings(), *plan.tasks(folder)]
    return tasks, estimate(plan, [task for task in tasks if not is_finished(folder / task.folder, task.config)], jobs)


def _planned(
    pairs: ShardFolder,
    folder: Path,
    arms: Sequence[Arm],
    shared: TrainConfig,
    folds: int,
    repeats: int,
    per_class: Sequence[str],
    pretraining: Pretraining | None,
    jobs: int | None,
    progress: Progress,
) -> tuple[Plan, int]:
    """The plan with everything chosen that was left open, as it was chosen before where the folder holds one."""
    configs = [arm.config(shared) for arm in arms]
    for config in {(c.backbone, c.init, c.weights, c.start): c for c in configs}.values():
        check_names(config)
    device, before = find_device(shared.device), chosen_before(folder)
    cores = usable_cores()
    if jobs is None:
        jobs = cores if device.type == "cpu" else 1
    if jobs < 1:
        raise OptionError(f"--jobs {jobs}: use 1 or more")
    runs = max(1, (folds or 1) * repeats * len(arms) * len(per_class))
    threads = before[1] if before else max(1, cores // min(jobs, runs))
    shared = replace(shared, device=device.type, method=chosen_method(replace(shared, arch="modulated"), pairs))
    options: dict[str, Any] = {"folds": folds, "repeats": repeats, "per_class": per_class, "threads": threads}
    plan = make_plan(pairs, arms, shared, pretraining=pretraining, **options)
    refuse_leaks(plan, folder, pairs)
    if shared.precision == "auto":
        first = next((task for task in plan.tasks(folder) if task.config.init != "full"), None)
        if before:
            precision = before[0]
        elif first is None or not computes_bf16(device):
            precision = "fp32"
        else:
            progress.note("choosing the precision of all runs on the first batch")
            precision = choose_shared_precision(first.config, pairs, threads)
        plan = replace(plan, shared=replace(shared, precision=precision))
    return plan, jobs


def _pairs_told(plan: Plan) -> str:
    folds = f"{plan.folds} folds" if plan.folds else "the shards' own splits"
    budgets = f", {len(plan.per_class)} data budgets" if len(plan.per_class) > 1 else ""
    return f"{folds} x {plan.repeats} repeats{budgets}"


def _read(task: Task, folder: Path) -> Run:
    return read_run(folder / task.folder, task.arm, task.setting)


def _told(pairs: ShardFolder, plan: Plan) -> dict[str, Any]:
    """Where the pairs come from, without places: the same comparison elsewhere gives the same results."""
    source = pairs.provenance.get("source", {})
    return {
        "images": len(pairs),
        "frame": pairs.header.size,
        "method": plan.shared.method,
        "source": {name: source.get(name) for name in ("model", "weights", "layer")},
        "target": pairs.provenance.get("target"),
    }


def leaks(pairs: ShardFolder, folds: int) -> list[str]:
    """A warning where duplicates of one another lie in different splits; folds of our own never divide them."""
    labels, splits = labels_and_splits(pairs)
    used = (labels >= 0) & ((splits >= 0) | bool(folds))
    parts = splits[used] == Split.TEST if folds else splits[used]
    groups = duplicates(pairs)[used]
    both = np.unique(np.stack([groups, parts], axis=1), axis=0)[:, 0]
    number, lies_in = np.unique(both, return_counts=True)
    if not (images := int(np.isin(groups, number[lies_in > 1]).sum())):
        return []
    return [
        f"{images} images have duplicates in another split, so that what is measured on may have been trained on: "
        "generate the shards again with --dedupe keep-first"
    ]
