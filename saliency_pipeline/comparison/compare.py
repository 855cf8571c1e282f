"""`salpipe compare`: from shards to results and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.analysis import Context, analyze
from saliency_pipeline.comparison.arms import Arm, reads_maps
from saliency_pipeline.comparison.config import ComparisonConfig, Execution
from saliency_pipeline.comparison.costs import PlannedCosts, measure_costs, pretraining_costs
from saliency_pipeline.comparison.estimate import Estimate, choose_shared_precision, estimate
from saliency_pipeline.comparison.leaks import refuse_leaks
from saliency_pipeline.comparison.map_results import ClassMaps, MapQuality
from saliency_pipeline.comparison.output import (
    Comparison,
    known_map_costs,
    pictures_of,
    refuse_output,
    write_comparison,
)
from saliency_pipeline.comparison.plan import Plan, Task, make_plan
from saliency_pipeline.comparison.plan_file import chosen_before, described, record_look, store
from saliency_pipeline.comparison.pretraining import pretrained, unequal_starts
from saliency_pipeline.comparison.quality import map_quality
from saliency_pipeline.comparison.results import Duplicates, Look
from saliency_pipeline.comparison.runs import is_finished
from saliency_pipeline.comparison.stages import Trained, train_repeats
from saliency_pipeline.comparison.summaries import mean_starts
from saliency_pipeline.comparison.tuning import chosen_rates, diverged_rates, tuning_tasks
from saliency_pipeline.comparison.use_arms import maps_of
from saliency_pipeline.devices import computes_bf16, find_device, threads_within_cores
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.folders import FolderLock, make_output
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.progress import Progress
from saliency_pipeline.serialization import from_json
from saliency_pipeline.shards.flagged import flagged_shares
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.subsets.group_by import anchored
from saliency_pipeline.training.config import ORACLE, STORED, TrainConfig
from saliency_pipeline.training.data.groups import Groups, check_same_groups, divided, find_groups
from saliency_pipeline.training.data.sources import OracleMaps
from saliency_pipeline.training.runlog import PROVENANCE
from saliency_pipeline.training.setup import check_names, chosen_method
from saliency_pipeline.training.trackers import check_trackers
from saliency_pipeline.workers import possible_jobs, usable_cores


@threads_within_cores()
def compare(
    shards: Path | str,
    output: Path | str,
    arms: Sequence[Arm],
    shared: TrainConfig | None = None,
    config: ComparisonConfig | None = None,
    execution: Execution | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Train every arm on every fold, and analyze how they differ.

    The same call resumes an interrupted one. Arms and budgets may be added later, repeats before
    the first run is finished.

    Args:
        shards: a folder that `salpipe generate` finished. Its test split, if any, is predicted once by every run.
        output: folder of the runs, `results.json`, `results.csv`, `costs.json`, `report.html` and `figures/`.
        arms: see `arms.choose_arms`.
        shared: options of every run, the article's by default.
        config: folds, repeats, data budgets, and rules of the analysis.
        execution: how runs are executed.
        progress: receives notes and progress.

    Raises:
        SalpipeError: an option that is not possible, no run that could be trained, or a full disk. Finished runs stay.
    """
    folder, progress, pairs = Path(output), progress or Progress(), ShardFolder(shards)
    pairs.load(progress)
    refuse_output(folder, shards)
    keep_large_blocks()
    make_output(folder)
    with FolderLock(folder, note=progress.note):
        # before workers begin, which read from the cache what is searched here with all cores
        shared, groups = _grouped(pairs, shared, progress)
        plan, execution = _planned(pairs, folder, arms, shared, config, execution, progress)
        if execution.engine == "loky":
            execution = replace(execution, jobs=possible_jobs(execution.jobs or 1, progress.note))
        store(plan, folder)
        tasks = plan.tasks(folder)
        _check_groups(folder, [*tasks, *tuning_tasks(tasks, plan.config.lrs)], groups)
        progress.note(f"{len(tasks)} runs: {len(plan.arms)} arms, {_pairs_and_budgets(plan)}")
        for task in plan.pretrainings()[:1]:
            find_groups(task.config, ShardFolder(task.shards), progress)
        trained, before = Trained(), 0
        quality = map_quality(pairs, folder, plan.arms, plan.shared, execution.assess_images, progress)
        for look, until in enumerate(plan.config.look_repeats, 1):
            trained += train_repeats(plan, folder, range(before, until), execution, progress)
            before = until
            comparison, made = _look(plan, folder, pairs, trained, groups, quality, until)
            if plan.config.looks > 1:
                progress.note(_look_note(plan.config, look, until, made))
            if made and made[-1].decided:
                break
    return comparison


@threads_within_cores()
def plan_only(
    shards: Path | str,
    output: Path | str,
    arms: Sequence[Arm],
    shared: TrainConfig | None = None,
    config: ComparisonConfig | None = None,
    execution: Execution | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Plan, list[Task], Estimate]:
    """The plan and the runs that `compare` would train with the same arguments, and their estimated duration.

    Nothing is written. Of several looks the last is counted; the runs may end at an earlier one.
    """
    pairs, folder, progress = ShardFolder(shards), Path(output), progress or Progress()
    refuse_output(folder, shards)
    shared, _ = _grouped(pairs, shared, progress)
    plan, execution = _planned(pairs, folder, arms, shared, config, execution, progress)
    own = plan.tasks(folder)
    tasks = [*plan.pretrainings(), *tuning_tasks(own, plan.config.lrs), *own]
    left = [task for task in tasks if not is_finished(folder / task.folder, task.config)]
    return plan, tasks, estimate(plan, left, execution.jobs or 1, progress)


def _look(
    plan: Plan,
    folder: Path,
    pairs: ShardFolder,
    trained: Trained,
    groups: Groups,
    quality: tuple[MapQuality, ...] | None,
    repeats: int,
) -> tuple[Comparison, tuple[Look, ...]]:
    """Analyze the runs so far and write the results; also returns the looks that were made."""
    runs = trained.runs(folder)
    if not runs:
        raise SalpipeError(f"no run could be trained; the first: {trained.failed[0]}")
    warnings = [
        *trained.failed,
        *unequal_starts(plan.arms),
        *diverged_rates(trained.extra, folder),
        *divided_groups(pairs, groups, plan.config.folds),
    ]
    plan_values = {name: value for name, value in described(plan).items() if name not in ("shards", "arms")}
    maps = flagged_shares(pairs, plan.shared.method, plan.shared.map_target)
    context = Context(
        {"plan": plan_values, **_origin(pairs, plan)},
        tuple(warnings),
        tuple(refuse_leaks(plan, folder, pairs)),
        from_json(Duplicates, groups.report()),
        None if maps is None else tuple(from_json(ClassMaps, row) for row in maps),
        mean_starts(runs),
        chosen_rates(trained.tasks, folder, plan.config.lrs),
        quality,
    )
    results = analyze(runs, plan.arms, plan.settings, pairs.classes, rules=plan.rules, context=context)
    costs = PlannedCosts(
        **vars(measure_costs(runs, pairs, plan.shared, known_map_costs(folder), tuning=trained.tuning_runs(folder))),
        pretraining=pretraining_costs(trained.extra, folder),
    )
    # first, so that no kill leaves results of an analysis that is not recorded
    record_look(folder, repeats)
    page = write_comparison(folder, results, costs, pictures_of(pairs, plan.shared))
    return Comparison(folder, page, len(runs), len(trained.failed), results), results.looks.made


def _grouped(pairs: ShardFolder, shared: TrainConfig | None, progress: Progress) -> tuple[TrainConfig, Groups]:
    """The shared options, a table of groups with its absolute path, and the groups that folds keep together."""
    shared = shared or TrainConfig()
    shared = replace(shared, group_by=anchored(shared.group_by))
    return shared, find_groups(shared, pairs, progress)


def _check_groups(folder: Path, tasks: Sequence[Task], groups: Groups) -> None:
    """Refuse runs on folds of other groups, such as those of a table that has changed since.

    Raises:
        PlanMismatchError: a run was started with other groups.
    """
    for task in tasks:
        run = folder / task.folder
        if (task.config.folds or task.config.inner_split) and (run / PROVENANCE).is_file():
            check_same_groups(run, read_object(run / PROVENANCE).get("groups"), groups.record(task.config))


def _look_note(config: ComparisonConfig, look: int, repeats: int, made: Sequence[Look]) -> str:
    """The progress note on a look."""
    done = f"look {look} of {config.looks} after {repeats} of {config.repeats} repeats"
    if len(made) < look or (p := made[look - 1].p) is None:
        return f"{done}: runs are missing, so that nothing is decided"
    own = made[look - 1]
    ending = "decided, no further run is needed" if look < config.looks else "decided"
    return f"{done}: p = {p:.2g} at level {own.level:.2g}: {ending if own.decided else 'not decided'}"


def _planned(
    pairs: ShardFolder,
    folder: Path,
    arms: Sequence[Arm],
    shared: TrainConfig,
    config: ComparisonConfig | None,
    execution: Execution | None,
    progress: Progress,
) -> tuple[Plan, Execution]:
    """The plan, and the execution with its number of jobs; open choices are those of the folder's plan, if any."""
    config, execution = config or ComparisonConfig(), execution or Execution()
    check_trackers(execution.log)
    configs = [arm.config(shared) for arm in arms]
    for each in {(c.backbone, c.init, c.weights, c.start): c for c in configs}.values():
        check_names(each)
    if config.pretrain is not None:
        check_names(shared)
    device, before = find_device(shared.device), chosen_before(folder)
    cores = usable_cores()
    jobs = execution.jobs or (cores if device.type == "cpu" else 1)
    runs = (config.folds or 1) * config.repeats * len(arms) * len(config.per_class)
    threads = before.threads if before else max(1, cores // min(jobs, max(1, runs)))
    _refuse_without_boxes(arms, pairs, config.pretrain)
    shared = replace(shared, device=device.type, method=_method(shared, arms, pairs))
    plan = make_plan(pairs, arms, shared, config, threads=threads)
    stored = before.primary if before and config.primary is None else None
    # arms and budgets that are added do not change it
    if stored and stored.setting in plan.settings and stored.arm in {arm.name for arm in plan.arms}:
        plan = replace(plan, primary=stored)
    refuse_leaks(plan, folder, pairs)
    if shared.precision == "auto":
        if before:
            precision = before.shared.precision
        elif not computes_bf16(device):
            precision = "fp32"
        else:
            progress.note("choosing the precision of all runs on the first batch of every arm")
            precision = choose_shared_precision(_first_configs(plan, folder), pairs, threads)
        plan = replace(plan, shared=replace(plan.shared, precision=precision))
    return plan, replace(execution, jobs=jobs)


def _method(shared: TrainConfig, arms: Sequence[Arm], pairs: ShardFolder) -> str | None:
    """The method whose maps arms read that name none; None where the shards hold no maps and no arm reads them."""
    if not pairs.methods and not any(reads_maps(arm) and maps_of(arm.options) in STORED for arm in arms):
        return None
    return chosen_method(replace(shared, arch="modulated"), pairs)


def _refuse_without_boxes(arms: Sequence[Arm], pairs: ShardFolder, pretrain: str | None) -> None:
    """Refuse arms with oracle maps where too few images have boxes or masks, before anything is trained."""
    oracles = [arm for arm in arms if maps_of(arm.options) == ORACLE]
    folders = [pairs] * bool(oracles)
    if pretrain is not None and any(arm.options.get("init") == "full" for arm in oracles):
        folders.append(ShardFolder(pretrain))
    for folder in folders:
        try:
            OracleMaps(folder).check()
        except SalpipeError as error:
            raise SalpipeError(f"arm {oracles[0].name}: {error}, or leave the oracle arms out") from None


def _first_configs(plan: Plan, folder: Path) -> list[TrainConfig]:
    """Options of the first run of every arm; before its pretraining an arm starts from its pretraining's weights."""
    first: dict[str, TrainConfig] = {}
    for task in plan.tasks(folder, [0]):
        first.setdefault(task.arm, task.config)
    own = {arm.name for arm in plan.arms if pretrained(arm)}
    return [
        replace(config, init=plan.shared.init, start=None) if arm in own else config for arm, config in first.items()
    ]


def _pairs_and_budgets(plan: Plan) -> str:
    config = plan.config
    folds = f"{config.folds} folds" if config.folds else "the shards' own splits"
    budgets = f", {len(config.per_class)} data budgets" if len(config.per_class) > 1 else ""
    tuning = f", each at {len(config.lrs)} rates on an inner split first" if config.lrs else ""
    looks = f", at most {config.looks} looks" if config.looks > 1 else ""
    return f"{folds} x {config.repeats} repeats{budgets}{tuning}{looks}; {plan.shared.precision}"


def _origin(pairs: ShardFolder, plan: Plan) -> dict[str, Any]:
    """Origin of the pairs, without paths: the same comparison elsewhere gives the same results."""
    provenance = Provenance.from_json(pairs.provenance)
    return {
        "images": len(pairs),
        "frame": pairs.header.size,
        "method": plan.shared.method,
        "source": {
            "model": provenance.source.get("model"),
            "weights": provenance.source.get("weights"),
            "layer": ", ".join(provenance.layers),
        },
        "target": provenance.target,
    }


def divided_groups(pairs: ShardFolder, groups: Groups, folds: int) -> list[str]:
    """A warning if images of one group are in different splits of the shards; folds never divide a group."""
    if not (images := divided(pairs, groups, folds=bool(folds))):
        return []
    others = "duplicates or others of their group" if groups.by else "duplicates"
    return [
        f"{images} images have {others} in another split, so that what is measured on may have been trained on: "
        f"generate the shards again with --split, or with {'--group-by' if groups.by else '--dedupe keep-first'}"
    ]
