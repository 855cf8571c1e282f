"""`salpipe compare`: parse, call `saliency_pipeline.comparison`, print the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from saliency_pipeline.cli.options import (
    ShardsPath,
    cache_options,
    config_option,
    echo,
    json_echo,
    json_option,
    output_option,
    quiet_option,
    setting_options,
    take_settings,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.comparison.config import ComparisonConfig, Execution
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.text import plural, shown
from saliency_pipeline.training.config import CONFIG, TrainConfig
from saliency_pipeline.uses.choices import USES

if TYPE_CHECKING:
    from saliency_pipeline.comparison.arms import Arm
    from saliency_pipeline.comparison.estimate import Estimate
    from saliency_pipeline.comparison.output import Comparison
    from saliency_pipeline.comparison.plan import Plan, Task
    from saliency_pipeline.progress import Progress

_NOT_SHARED = (
    *("arch", "init", "fusion", "use", "maps", "from_baseline"),
    *("folds", "fold", "per_class", "limit", "inner_split", "lr"),
)
"""Fields of `TrainConfig` that an arm or the comparison decides."""


@click.command()
@click.argument(
    "inputs",
    nargs=-1,
    type=ShardsPath(),
    metavar="SHARDS... | RUN RUN... | COMPARISON...",
)
@output_option("Folder of the comparison; run the same command again to resume.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME|NAME=ARM",
    help="An arm: baseline, half (modulated), full, learned; a fusion: neutral, multiply, add, concat, input; a use of "
    "maps, as for --uses; an arm with other maps, such as oracle-zoom or self-zoom; or a control, such as "
    "half-mismatched; NAME=ARM renames it; may be repeated.  [default: baseline, half]",
)
@click.option(
    "--uses",
    metavar="USE,USE",
    help="Add arms of these uses of maps, with parameters as in zoom:margin=0.3, and their controls: "
    f"{', '.join(USES)}.",
)
@click.option(
    "--oracle",
    is_flag=True,
    help="Add an arm oracle-USE for every candidate that reads maps, with the true boxes or masks of the shards as "
    "maps: how much better maps could gain.",
)
@click.option(
    "--self",
    "self_maps",
    is_flag=True,
    help="Add an arm self-USE for every candidate that reads maps, with the maps of the baseline of the same fold and "
    "repeat.",
)
@click.option(
    "--arms",
    "arms_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.toml",
    help="Custom arms: one table [arm.NAME] per arm with options of 'salpipe train'; like: the arm that it is "
    "based on; of: the candidate of a control, which differs from it only in its maps.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="NAME|none",
    help="Add this control for every candidate that reads maps: mismatched, mismatched-same-class, center-prior, "
    "uniform or shuffled-pixels; none for no controls; may be repeated.  [default: mismatched and center-prior, for "
    "the first candidate, or for all with --uses]",
)
@click.option("--reference", metavar="ARM", help="Arm that candidates are compared with.  [default: baseline]")
@setting_options(ComparisonConfig)
@setting_options(
    TrainConfig,
    without=_NOT_SHARED,
    help={"seed": "Random seed of the first repeat; each further repeat uses the next integer."},
)
@setting_options(Execution)
@click.option("--dry-run", is_flag=True, help="Write nothing: list the runs, and estimate their time.")
@click.option("--report-only", is_flag=True, help="Rebuild the report of OUTPUT from its results.json.")
@cache_options
@config_option
@json_option
@quiet_option
def command(
    inputs: tuple[Path, ...],
    output: Path,
    reference: str | None,
    dry_run: bool,
    report_only: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare networks trained with and without saliency maps.

    Trains every arm on the same folds, with the same initialization and the same order of images, and reports
    how they differ: report.html, results.json, results.csv, figures, and the runs themselves. RUNs that
    'salpipe train' finished can be compared as well. Options of 'salpipe train' apply to all arms. With several SHARDS,
    or finished COMPARISONs, one per data set, the verdict is over data sets; it requires three or more.

    \b
    Examples:
      salpipe compare shards -o comparison --epochs 12 --lr 0.005 --per-class 15
      salpipe compare shards -o comparison --epochs 12 --dry-run
      salpipe compare shards -o fusions --arm baseline --arm half --arm add --arm concat
      salpipe compare shards -o own-controls --arm baseline --arm half --arm neutral --control mismatched
      salpipe compare shards -o uses --uses zoom,mask,attention-loss --oracle --self
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
    from saliency_pipeline.devices import find_device

    find_device(options["device"])
    progress = TerminalProgress(quiet)
    if report_only:
        _echo_verdict(_rebuilt(inputs, output), as_json)
        return
    if not inputs:
        raise click.UsageError("give SHARDS, or two RUNs or more")
    config, execution = take_settings(ComparisonConfig, options), take_settings(Execution, options)
    if comparison := _of_finished(inputs, output, reference, config, progress):
        _echo_verdict(comparison, as_json)
        return
    from saliency_pipeline.comparison.compare import compare, plan_only
    from saliency_pipeline.comparison.datasets import compare_datasets, name_inputs

    chosen = _arms(reference, options)
    # the arms start from it
    shared = take_settings(TrainConfig, options | {"start": None})
    for lr in config.lrs:
        shared = replace(shared, lr=lr)  # refuses a rate that is not possible
    if len(config.lrs) == 1:
        config = replace(config, lrs=())
    settings: Any = (chosen, shared, config, execution)
    several = len(inputs) > 1
    if dry_run and several and as_json:
        raise click.UsageError("--dry-run --json: give one folder of shards at a time")
    if dry_run:
        for name, shards in name_inputs(inputs).items() if several else [("", inputs[0])]:
            if several:
                echo(f"{shown(name)}:")
            _echo_plan(*plan_only(shards, output / name, *settings, progress=progress), as_json)
    elif several:
        _echo_verdict(compare_datasets(inputs, output, *settings, progress=progress), as_json)
    else:
        _echo_verdict(compare(inputs[0], output, *settings, progress=progress), as_json)


def _arms(reference: str | None, options: dict[str, Any]) -> tuple[Arm, ...]:
    """The arms that the options choose."""
    from saliency_pipeline.comparison.arms import choose_arms
    from saliency_pipeline.comparison.use_arms import listed_uses

    return choose_arms(
        options["arms"],
        options["arms_file"],
        reference=reference,
        start=options["start"],
        controls=_controls(options["controls"]),
        uses=() if options["uses"] is None else listed_uses(options["uses"]),
        oracle=options["oracle"],
        self_maps=options["self_maps"],
    )


def _rebuilt(inputs: tuple[Path, ...], output: Path) -> Comparison:
    """The comparison of a folder, its report written again."""
    from saliency_pipeline.comparison.datasets import rebuild_overall
    from saliency_pipeline.comparison.output import is_overall, rebuild

    return rebuild_overall(output) if is_overall(output) else rebuild(output, inputs[0] if inputs else None)


def _of_finished(
    inputs: tuple[Path, ...], output: Path, reference: str | None, config: ComparisonConfig, progress: Progress
) -> Comparison | None:
    """The comparison of finished runs, or over finished comparisons; None for shards."""
    from saliency_pipeline.comparison.datasets import combine, kind_of
    from saliency_pipeline.comparison.finished_runs import compare_runs
    from saliency_pipeline.recognition import COMPARISON, SHARDS

    if (kind := kind_of(inputs)) == COMPARISON and len(inputs) > 1:
        _refuse_unused("finished comparisons", set())
        return combine(inputs, output, progress=progress)
    if (len(inputs) > 1 and kind != SHARDS) or (inputs[0] / CONFIG).is_file():
        _refuse_unused("finished runs", {"reference", "rope", "threshold"})
        rules: Any = {"rope": config.rope, "threshold": config.threshold}
        return compare_runs(inputs, output, reference=reference, progress=progress, **rules)
    return None


def _echo_verdict(comparison: Comparison, as_json: bool) -> None:
    from saliency_pipeline.assessment.wording import number

    verdict = comparison.results.verdict
    if as_json:
        counts = {name: getattr(comparison, name) for name in ("folder", "page", "runs", "failed")}
        json_echo(counts | vars(verdict))
        return
    echo(verdict.sentence)
    for line in verdict.details:
        echo(f"  {line}")
    for row in getattr(comparison.results, "headroom", ()):
        echo(f"  {row.sentence}")
    for row in getattr(comparison.results, "quality", None) or ():
        echo(f"  maps: {row.title} {number(row.mean)}, center-prior {number(row.floor)}")
    for warning in comparison.results.warnings:
        echo(f"  note: {shown(warning)}")
    echo(shown(comparison.page))


def _refuse_unused(inputs: str, used: set[str]) -> None:
    """Refuse options on the command line that have no effect on finished inputs."""
    context = click.get_current_context()
    always = {"inputs", "output", "as_json", "quiet", "device"}
    for parameter in context.command.params:
        typed = parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        if typed and parameter.expose_value and parameter.name not in used | always:
            raise click.UsageError(f"{parameter.opts[0]}: has no effect on {inputs}; leave it out")


def _controls(controls: tuple[str, ...]) -> tuple[str, ...] | None:
    """The requested controls: None if the option is missing, empty for `none`."""
    if "none" in controls and len(controls) > 1:
        raise click.UsageError("--control none: leave out the others")
    return () if controls == ("none",) else controls or None


def _echo_plan(plan: Plan, tasks: Sequence[Task], estimate: Estimate, as_json: bool) -> None:
    """Print the runs, the questions, and the estimated time."""
    from saliency_pipeline.comparison.arms import contrasts

    questions, config, look_repeats = contrasts(plan.arms), plan.config, plan.rules.look_repeats
    if as_json:
        rules = {
            "primary": plan.primary and asdict(plan.primary),
            "rope": config.margin,
            "threshold": config.threshold,
            "looks": config.looks,
            "repeats": config.repeats,
            "look_repeats": look_repeats,
            "own_split": not config.folds,
        }
        document = asdict(estimate) | {"rules": rules, "questions": [asdict(question) for question in questions]}
        json_echo(document | {"runs": [task.folder for task in tasks]})
        return
    for (purpose, arm, setting), count in Counter((t.purpose, t.label, t.setting) for t in tasks).items():
        step = estimate.seconds_per_step.get(arm)
        speed = f", {1000 * step:.0f} ms per step" if step else ""
        name = f"tuning of {arm}" if purpose == "tuning" else arm
        echo(f"{name}, {setting}: {plural(count, 'run')}{speed}")
    for question in questions:
        echo(f"{question.arm} vs. {question.against} ({question.role})")
    if (primary := plan.primary) is not None:
        looks = f", after {', '.join(map(str, look_repeats))} repeats" if config.looks > 1 else ""
        named = f"{primary.arm}, {primary.measure}, {primary.setting}"
        echo(f"primary question: {named}; {plural(config.looks, 'look')}{looks}")
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
