"""Analysis of finished runs: from runs to results.json, which has all content of the report.

Wall-clock times differ between runs of the same comparison and are kept in costs.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from saliency_pipeline.comparison.arms import REFERENCE, Arm, Question, contrasts, first_reference, reads_maps
from saliency_pipeline.comparison.caveats import caveats
from saliency_pipeline.comparison.conclusion import conclude
from saliency_pipeline.comparison.contrasts import conditions, contrast
from saliency_pipeline.comparison.disagreements import confusion, disagreements
from saliency_pipeline.comparison.headroom import headrooms
from saliency_pipeline.comparison.looks import Looks, first_repeats, first_seed, make_looks
from saliency_pipeline.comparison.map_results import ClassMaps, MapQuality
from saliency_pipeline.comparison.pretraining import source_contrasts
from saliency_pipeline.comparison.results import (
    FORMAT,
    FORMAT_VERSION,
    ComparedArm,
    Duplicates,
    Images,
    LookResults,
    PrimaryQuestion,
    Results,
    RunCounts,
    SettingResult,
    Start,
    Tuning,
    Verdict,
)
from saliency_pipeline.comparison.rules import FINAL, Primary, Rules
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.comparison.summaries import summarize
from saliency_pipeline.comparison.verdicts import decide
from saliency_pipeline.statistics.power import LEVEL, MINIMUM_PAIRS
from saliency_pipeline.statistics.speed import EARLY_EPOCHS


@dataclass(frozen=True)
class Context:
    """Fields of `Results` besides the analysis of the runs.

    Attributes:
        about: where the runs come from; any JSON values, stored as they are.
        warnings: sentences that come before the computed ones.
        leaks: accepted leaks, each a full sentence of why there is no verdict; any of them forbids all verdicts.
        duplicates: near duplicates; None if the search is not recorded.
        maps: per class; None where its maps were not counted.
        starts: by arm, see `summaries.mean_starts`.
        tuning: learning rates that were chosen; None without tuning.
        quality: of the maps; None where it was not measured.
    """

    about: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    duplicates: Duplicates | None = None
    maps: tuple[ClassMaps, ...] | None = None
    starts: Mapping[str, Start | None] = field(default_factory=dict)
    tuning: Tuning | None = None
    quality: tuple[MapQuality, ...] | None = None


def analyze(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    settings: Sequence[str],
    classes: Sequence[str],
    *,
    rules: Rules,
    context: Context,
) -> Results:
    """Analyze finished runs.

    Args:
        runs: of all arms and settings.
        arms: in the order in which they are shown.
        settings: data budgets, in their order.
        classes: names of the classes.
        rules: primary question, margins, levels and looks, fixed before the runs. Without a plan (runs that were
            trained one by one), `look_repeats` is empty and all runs count. Without a primary question, that of the
            first candidate's final accuracy under the last setting is taken.
        context: the rest of results.json.
    """
    questions = [*contrasts(arms), *source_contrasts(arms)]
    reference, leaking = first_reference(arms), bool(context.leaks)
    question, primary = _primary(rules, questions, settings)
    rules = replace(rules, primary=primary)
    looks = make_looks(runs, rules, question, reference, leaking=leaking)
    used = first_repeats(runs, looks.repeats, first_seed(runs))
    shown = question or next(iter(questions), Question(reference, reference, REFERENCE))
    shown_setting = primary.setting if primary else settings[-1] if settings else ""
    parts = [
        _setting(name, [run for run in used if run.setting == name], arms, classes, rules, looks, shown)
        for name in settings
    ]
    results = Results(
        FORMAT,
        FORMAT_VERSION,
        tuple(ComparedArm(arm.name, arm.kind, arm.of, arm.reference, reads_maps(arm), arm.options) for arm in arms),
        tuple(classes),
        rules.config.margin,
        LEVEL,
        MINIMUM_PAIRS,
        None if question is None or primary is None else PrimaryQuestion(**vars(primary), against=question.against),
        LookResults(max(1, len(looks.planned)), looks.made),
        RunCounts(len(used), looks.expected * len(arms) * len(settings) if looks.expected else None),
        settings=decide(parts, primary, looks, leaking=leaking),
        headroom=headrooms(
            [run for run in used if run.setting == shown_setting], arms, shown_setting, rules, looks, leaking=leaking
        ),
        verdict=Verdict("", "", ()),
        **vars(context),
    )
    results = replace(results, warnings=(*context.warnings, *caveats(results, runs, looks)))
    return replace(results, verdict=conclude(results))


def _primary(
    rules: Rules, questions: Sequence[Question], settings: Sequence[str]
) -> tuple[Question | None, Primary | None]:
    """The primary question; None where no candidate is compared with a reference."""
    asked = [question for question in questions if question.role == REFERENCE]
    if not asked or not settings:
        return None, None
    primary = rules.primary or Primary(asked[0].arm, FINAL, settings[-1])
    question = next((question for question in asked if question.arm == primary.arm), None)
    return (question, primary) if question is not None and primary.setting in settings else (None, None)


def _setting(
    name: str,
    runs: Sequence[Run],
    arms: Sequence[Arm],
    classes: Sequence[str],
    rules: Rules,
    looks: Looks,
    shown: Question,
) -> SettingResult:
    """One data budget: every arm and every contrast, without verdicts."""
    by_arm = {
        arm.name: sorted(
            (run for run in runs if run.arm == arm.name), key=lambda run: (run.config.seed, run.config.fold or 0)
        )
        for arm in arms
    }
    reference = first_reference(arms)
    where = conditions(by_arm, reference, rules)
    pool, validation, train = ([run.images[part] for run in runs] or [0] for part in ("pool", "validation", "train"))
    return SettingResult(
        name,
        Images(_span(train), _span(validation), _span(pool)),
        where.ratio,
        where.epochs,
        min(EARLY_EPOCHS, where.epochs),
        where.threshold,
        where.own_split,
        completed=all(len(own) >= (looks.expected or 1) for own in by_arm.values()),
        arms={arm: summarize(own, where, classes) for arm, own in by_arm.items() if own},
        contrasts=tuple(
            contrast(question, by_arm, where)
            for question in (*contrasts(arms), *source_contrasts(arms))
            # with a plan, those without runs count in the family as well
            if looks.expected or (by_arm[question.arm] and by_arm[question.against])
        ),
        confusion=confusion(by_arm, shown, classes),
        disagreements=disagreements(by_arm, shown),
    )


def _span(values: Sequence[int]) -> tuple[int, int]:
    return int(min(values)), int(max(values))
