"""`salpipe compare`: parse, call `saliency_pipeline.comparison`, print the verdict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from saliency_pipeline.cli.options import (
    config_option,
    echo,
    json_echo,
    json_option,
    output_option,
    quiet_option,
    setting_options,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.text import shown
from saliency_pipeline.training.config import CONFIG, TrainConfig

_NOT_SHARED = ("arch", "init", "fusion", "maps", "folds", "fold", "per_class", "limit", "inner_split", "lr")
"""Fields of `TrainConfig` that an arm or the comparison decides."""


def _rates(text: Any) -> tuple[float, ...]:
    """The numbers of a text with commas between them."""
    return text if isinstance(text, tuple) else tuple(float(number) for number in str(text).split(","))


@click.command()
@click.argument(
    "inputs",
    nargs=-1,
    type=click.Path(exists=True, path_type=Path),
    metavar="SHARDS... | RUN RUN... | COMPARISON...",
)
@output_option("Folder of the comparison; run the same command again to go on where it stopped.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME|NAME=ARM",
    help="An arm: baseline, half (modulated), full, learned; a fusion: neutral, multiply, add, concat, input; or a "
    "control of an arm, such as half-mismatched; may be given another name. Give it again for each.  "
    "[default: baseline, half]",
)
@click.option(
    "--arms",
    "arms_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.toml",
    help="Arms of your own: a table [arm.NAME] each, of options of 'salpipe train'; like = an arm to start from, of = "
    "the candidate of a control, which differs from it in maps alone.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="NAME|none",
    help="Make a control of every candidate that reads maps: mismatched, mismatched-same-class, center-prior, uniform "
    "or shuffled-pixels; none for no controls. Give it again for each.  [default: mismatched and center-prior, for the "
    "first candidate]",
)
@click.option("--reference", metavar="ARM", help="Arm that candidates are compared with.  [default: baseline]")
@click.option(
    "--primary",
    metavar="ARM[:MEASURE]",
    help="The primary question: a candidate and final (accuracy), area (under the first epochs) or speed, under the "
    "last budget.  [default: the first candidate's final accuracy]",
)
@click.option(
    "--rope",
    type=float,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Half width of the region of practical equivalence, in points.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="SHARE",
    help="Accuracy, chosen beforehand, for the epochs to reach it.  [default: 95 % of the reference's, descriptive]",
)
@click.option(
    "--looks",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Analyze the primary question N times while repeats are added, at levels that err in 5 % together; stop when "
    "it is decided.",
)
@click.option("--folds", type=int, default=5, show_default=True, metavar="K", help="0 for the shards' own splits.")
@click.option(
    "--repeats",
    type=int,
    default=2,
    show_default=True,
    help="Number of repeats, each with its own folds and seed; fixed once analyzed.",
)
@click.option(
    "--per-class",
    default="all",
    show_default=True,
    metavar="N,N,all",
    help="Training images per class; several numbers compare scarce data with plenty.",
)
@click.option(
    "--pretrain",
    type=click.Path(exists=True, path_type=Path),
    metavar="SHARDS",
    help="Source pairs, on which the arm 'full' and a baseline for it are trained first, once per repeat.",
)
@click.option(
    "--pretrain-size",
    default="all",
    show_default=True,
    metavar="N,N,all",
    help="Number of source images for pretraining; several numbers give one arm each.",
)
@click.option(
    "--lr",
    "lrs",
    type=_rates,
    metavar="LR,LR",
    default="1e-4",
    show_default=True,
    help="Peak learning rate. If several are given, the best one is chosen per arm, budget and pair, on an inner split "
    "of the training images.",
)
@setting_options(
    TrainConfig,
    without=_NOT_SHARED,
    help={"seed": "Random seed of the first repeat; each further repeat uses the next integer."},
)
@click.option("--jobs", type=int, metavar="N", help="Runs at a time.  [default: one a core, or one on a GPU]")
@click.option(
    "--engine",
    type=click.Choice(["loky", "dask", "ray"]),
    default="loky",
    show_default=True,
    help="What runs them: this machine, or a cluster that shares the folders.",
)
@click.option("--address", help="Of the cluster's scheduler, such as tcp://10.0.0.1:8786.")
@click.option("--dry-run", is_flag=True, help="Write nothing: list the runs, and say how long they take.")
@click.option("--report-only", is_flag=True, help="Write the report of OUTPUT again from its results.json.")
@config_option
@json_option
@quiet_option
def command(
    inputs: tuple[Path, ...],
    output: Path,
    arms: tuple[str, ...],
    arms_file: Path | None,
    controls: tuple[str, ...],
    reference: str | None,
    primary: str | None,
    rope: float,
    threshold: float | None,
    looks: int,
    folds: int,
    repeats: int,
    per_class: str,
    pretrain: Path | None,
    pretrain_size: str,
    start: str | None,
    lrs: tuple[float, ...],
    jobs: int | None,
    engine: str,
    address: str | None,
    dry_run: bool,
    report_only: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Did saliency help, and can the answer be trusted?

    Trains every arm on the same folds, from the same first weights, with the same images in the same order, and says
    how they differ: report.html, results.json, results.csv, figures, and the runs themselves. Give RUNs that 'salpipe
    train' finished instead, and those are compared. Options of 'salpipe train' hold for all arms. With several SHARDS,
    or finished COMPARISONs, one per data set, the verdict is over data sets; it takes three or more.

    \b
    Examples:
      salpipe compare shards -o comparison --epochs 12 --lr 0.005 --per-class 15
      salpipe compare shards -o comparison --epochs 12 --dry-run
      salpipe compare shards -o fusions --arm baseline --arm half --arm add --arm concat
      salpipe compare shards -o own-controls --arm baseline --arm half --arm neutral --control mismatched
      salpipe compare shards -o scarce --per-class 5,10,20,all --jobs 2
      salpipe compare shards -o planned --repeats 6 --looks 3 --primary half:final --rope 0.5
      salpipe compare shards -o tuned --lr 1e-4,5e-4 --dry-run
      salpipe compare faces -o transfer --arm baseline --arm full --pretrain imagenet --pretrain-size 1000,3000,all
      salpipe compare runs/baseline runs/half -o two-runs
      salpipe compare pets flowers clothes -o datasets --epochs 12 --lr 0.005
      salpipe compare -o comparison --report-only
    """  # noqa: D301 - click reads \b
    # before the libraries are imported, which takes seconds
    check_weights(options["weights"])
    from dataclasses import replace

    from saliency_pipeline.comparison.arms import choose_arms
    from saliency_pipeline.comparison.compare import compare, plan_only
    from saliency_pipeline.comparison.datasets import (
        combine,
        compare_datasets,
        kind_of,
        name_inputs,
        rebuild_overall,
    )
    from saliency_pipeline.comparison.finished_runs import compare_runs
    from saliency_pipeline.comparison.output import is_overall, rebuild
    from saliency_pipeline.comparison.pretraining import Pretraining
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.recognition import COMPARISON, SHARDS

    find_device(options["device"])
    progress = TerminalProgress(quiet)
    if report_only:
        found = rebuild_overall(output) if is_overall(output) else rebuild(output, inputs[0] if inputs else None)
    elif not inputs:
        raise click.UsageError("give SHARDS, or two RUNs or more")
    elif (kind := kind_of(inputs)) == COMPARISON and len(inputs) > 1:
        _refuse_unused("finished comparisons", set())
        found = combine(inputs, output, progress=progress)
    elif (len(inputs) > 1 and kind != SHARDS) or (inputs[0] / CONFIG).is_file():
        _refuse_unused("finished runs", {"reference", "rope", "threshold"})
        found = compare_runs(
            inputs, output, reference=reference, rope=rope / 100, threshold=threshold, progress=progress
        )
    else:
        chosen = choose_arms(arms, arms_file, reference=reference, start=start, controls=_controls(controls))
        shared = TrainConfig(lr=lrs[0], **options)
        for lr in lrs:
            replace(shared, lr=lr)  # refuses a rate that cannot be
        pretraining = Pretraining(str(pretrain.resolve()), tuple(pretrain_size.split(","))) if pretrain else None
        what: dict[str, Any] = {
            "primary": primary,
            "rope": rope / 100,
            "threshold": threshold,
            "looks": looks,
            "lrs": lrs if len(lrs) > 1 else (),
            "folds": folds,
            "repeats": repeats,
            "per_class": tuple(per_class.split(",")),
            "pretraining": pretraining,
            "jobs": jobs,
            "progress": progress,
        }
        if dry_run and len(inputs) > 1:
            if as_json:
                raise click.UsageError("--dry-run --json: give one folder of shards at a time")
            for name, shards in name_inputs(inputs).items():
                echo(f"{shown(name)}:")
                _say_plan(*plan_only(shards, output / name, chosen, shared, **what), as_json)
            return
        if dry_run:
            plan, tasks, estimate = plan_only(inputs[0], output, chosen, shared, **what)
            _say_plan(plan, tasks, estimate, as_json)
            return
        ways: dict[str, Any] = {"engine": engine, "address": address} | what
        if len(inputs) > 1:
            found = compare_datasets(inputs, output, chosen, shared, **ways)
        else:
            found = compare(inputs[0], output, chosen, shared, **ways)
    verdict = found.results.verdict
    if as_json:
        counts = {"folder": found.folder, "page": found.page, "runs": found.runs, "failed": found.failed}
        json_echo(counts | vars(verdict))
        return
    echo(verdict.sentence)
    for line in verdict.details:
        echo(f"  {line}")
    for warning in found.results.warnings:
        echo(f"  note: {shown(warning)}")
    echo(shown(found.page))


def _refuse_unused(inputs: str, used: set[str]) -> None:
    """Refuse options that were typed and decide nothing: what is compared was trained already."""
    context = click.get_current_context()
    always = {"inputs", "output", "as_json", "quiet", "device"}
    for parameter in context.command.params:
        typed = parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        if typed and parameter.expose_value and parameter.name not in used | always:
            raise click.UsageError(f"{parameter.opts[0]}: decides nothing about {inputs}; leave it out")


def _controls(controls: tuple[str, ...]) -> tuple[str, ...] | None:
    """What `--control` asks for: None where it is not given, nothing for `none`."""
    if "none" in controls and len(controls) > 1:
        raise click.UsageError("--control none: leave out the others")
    return () if controls == ("none",) else controls or None


def _say_plan(plan: Any, tasks: Any, estimate: Any, as_json: bool) -> None:
    """The runs, the questions, and how long they take."""
    from dataclasses import asdict

    from saliency_pipeline.comparison.arms import contrasts
    from saliency_pipeline.text import plural

    questions = contrasts(plan.arms)
    if as_json:
        rules = {"rules": asdict(plan.rules), "questions": [asdict(question) for question in questions]}
        json_echo(asdict(estimate) | rules | {"runs": [task.folder for task in tasks]})
        return
    for (purpose, arm, setting), count in Counter((t.purpose, t.label, t.setting) for t in tasks).items():
        step = estimate.seconds_per_step.get(arm)
        speed = f", {1000 * step:.0f} ms per step" if step else ""
        name = f"tuning of {arm}" if purpose == "tuning" else arm
        echo(f"{name}, {setting}: {plural(count, 'run')}{speed}")
    for question in questions:
        echo(f"{question.arm} vs. {question.against} ({question.role})")
    if (primary := plan.primary) is not None:
        looks = f", after {', '.join(map(str, plan.rules.look_repeats))} repeats" if plan.looks > 1 else ""
        named = f"{primary.arm}, {primary.measure}, {primary.setting}"
        echo(f"primary question: {named}; {plural(plan.looks, 'look')}{looks}")
    for purpose, part in estimate.parts.items():
        if len(estimate.parts) > 1:
            echo(f"{purpose}: {plural(part.runs, 'run')}, about {_duration(part.seconds)}")
    echo(
        f"{plural(estimate.runs, 'run')} to train, {plural(estimate.steps, 'step')}, about "
        f"{_duration(estimate.seconds)}; without --dry-run they are trained"
    )


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
