"""`salpipe compare`: from shards, or from finished runs, to results and their report."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import UndefinedError
from PIL import Image

from saliency_pipeline.comparison.analysis import analyse
from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.costs import paid
from saliency_pipeline.comparison.estimate import Estimate, choose_shared_precision, estimate
from saliency_pipeline.comparison.grouping import grouped
from saliency_pipeline.comparison.jobs import do_tasks
from saliency_pipeline.comparison.plan import ALL, Plan, Pretraining, Task, chosen_before, make_plan, store
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.runs import Run, is_finished, read_run
from saliency_pipeline.devices import computes_bf16, find_device, threads_within_cores
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.images.nesting import refuse_among_images
from saliency_pipeline.images.record import Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.saliency.allocator import keep_large_blocks
from saliency_pipeline.saliency.render import overlay
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.parts import check_names, chosen_method, duplicates, labels_and_splits
from saliency_pipeline.training.runlog import read_json
from saliency_pipeline.workers import possible_jobs, usable_cores

RESULTS, COSTS = "results.json", "costs.json"
Pictures = Callable[[str], tuple[bytes, bytes] | None]


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        folder: where everything is.
        page: the report.
        runs: finished runs that it is about.
        failed: runs that could not be trained.
        results: what `results.json` holds.
    """

    folder: Path
    page: Path
    runs: int
    failed: int
    results: dict[str, Any]


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
    _refuse(folder, shards)
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
            runs, plan.arms, plan.settings, pairs.classes, about=about, warnings=[*warnings, *leaks(pairs, plan.folds)]
        )
        costs = paid(runs, pairs, plan.shared, _maps_known(folder))
        page = _write(folder, results, costs, _pictures(pairs, plan.shared))
    return Comparison(folder, page, len(runs), len(failed), results)


def _refuse(folder: Path, *inputs: Path | str) -> None:
    """Raises SalpipeError where a comparison does not belong into a folder."""
    refuse_among_images(folder, *inputs)
    refuse_shards(folder)


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
    _refuse(folder, shards)
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
    _refuse(folder, *runs)
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
    results = analyse(found, arms, ["all images"], classes, about=about, warnings=warnings)
    make_output(folder)
    with FolderLock(folder, note=(progress or Progress()).note):
        costs = paid(found, pairs, found[0].config, _maps_known(folder))
        page = _write(folder, results, costs, _pictures(pairs, found[0].config))
    return Comparison(folder, page, len(found), 0, results)


def rebuild(output: Path | str, shards: Path | str | None = None) -> Comparison:
    """Write the report of a comparison again, from its `results.json` and `costs.json`.

    Args:
        output: a folder of `compare`.
        shards: the pairs, for the pictures of single images; where the comparison had them by default.

    Raises:
        SalpipeError: it holds no results, or they are damaged.
    """
    folder = Path(output)
    if not (folder / RESULTS).exists():
        raise SalpipeError(f"{folder}: holds no {RESULTS}; make one with 'salpipe compare SHARDS -o {folder}'")
    results, costs = read_json(folder / RESULTS), read_json(folder / COSTS)
    place = shards or costs.get("shards")
    pairs = ShardFolder(place) if place and Path(place).exists() else None
    try:
        method = results.get("about", {}).get("method")
        page = write_report(folder, results, costs, _pictures(pairs, replace(TrainConfig(), method=method)))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError) as error:
        raise SalpipeError(
            f"{folder / RESULTS}: damaged ({error!r:.200}); run the same 'salpipe compare' again"
        ) from error
    return Comparison(
        folder, page, sum(len(a["runs"]) for s in results["settings"] for a in s["arms"].values()), 0, results
    )


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


def _shards(run: Run) -> ShardFolder | None:
    try:
        return ShardFolder(run.shards)
    except SalpipeError:
        return None  # gone, and needed for pictures alone


def _maps_known(folder: Path) -> dict[str, Any] | None:
    """What making the maps was found to cost before."""
    if not (folder / COSTS).exists():
        return None
    known = read_json(folder / COSTS).get("maps")
    return known if isinstance(known, dict) and isinstance(known.get("seconds"), int | float) else None


def _pictures(pairs: ShardFolder | None, config: TrainConfig) -> Pictures:
    """Photo and overlay of an image by its name, as JPEG files."""

    def pictures(key: str) -> tuple[bytes, bytes] | None:
        if pairs is None:
            return None
        try:
            pair = pairs[pairs.find(key)]
        except SalpipeError:
            return None
        maps = pair.maps.get(config.method or next(iter(pair.maps), ""))
        if maps is None:
            return None
        return _jpeg(pair.image), _jpeg(overlay(pair.image, maps[config.map_target]))

    return pictures


def _jpeg(image: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return file.getvalue()


def _write(folder: Path, results: Mapping[str, Any], costs: Mapping[str, Any], pictures: Pictures) -> Path:
    write_atomically(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_atomically(folder / COSTS, json.dumps(costs, indent=1) + "\n")
    return write_report(folder, results, costs, pictures)
