"""From finished runs to results.json, which holds everything that the report shows and depends on the runs alone.

Wall-clock times differ between runs of the same comparison and are kept in costs.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saliency_pipeline.comparison.arms import REFERENCE, Arm, Question, contrasts, first_reference, reads_maps
from saliency_pipeline.comparison.caveats import caveats
from saliency_pipeline.comparison.conclusion import conclude
from saliency_pipeline.comparison.contrasts import Conditions, conditions, contrast
from saliency_pipeline.comparison.disagreements import confusion, disagreements
from saliency_pipeline.comparison.looks import Looks, first_repeats, first_seed, make_looks
from saliency_pipeline.comparison.rules import FINAL, Primary, Rules
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.comparison.summaries import summarize
from saliency_pipeline.comparison.verdicts import decide
from saliency_pipeline.statistics.power import LEVEL, MINIMUM_PAIRS
from saliency_pipeline.statistics.speed import EARLY_EPOCHS

FORMAT, FORMAT_VERSION = "salpipe-comparison", 2


def analyze(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    settings: Sequence[str],
    classes: Sequence[str],
    *,
    rules: Rules,
    about: Mapping[str, Any],
    warnings: Sequence[str] = (),
    leaks: Sequence[str] = (),
    duplicates: Mapping[str, Any] | None = None,
    maps: Sequence[Mapping[str, Any]] | None = None,
    starts: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that finished runs show.

    Args:
        runs: of all arms and settings.
        arms: in the order in which they are shown.
        settings: data budgets, in their order.
        classes: names of the classes.
        rules: primary question, margins, levels and looks, fixed before the runs. Without a plan (runs that were
            trained one by one), `look_repeats` is empty and all runs count. Without a primary question, that of the
            first candidate's final accuracy under the last setting is taken.
        about: where the runs come from; stored as it is.
        warnings: sentences that the caller adds to the computed ones.
        leaks: accepted leaks, each a full sentence of why there is no verdict; any of them forbids all verdicts.
        duplicates: `searched`, `images`, `groups` and `by`; None where it is not recorded.
        maps: per class its `images` and the shares of `zero` and `constant` maps; None where they were not counted.
        starts: per arm how far its first network is from plain transfer, or None.
        tuning: learning rates that were chosen per arm.

    Returns:
        JSON values: see docs/comparison.md.
    """
    questions = contrasts(arms)
    reference = first_reference(arms)
    question, primary = _primary(rules, questions, settings)
    rules = replace(rules, primary=primary)
    looks = make_looks(runs, rules, question, reference, leaking=bool(leaks))
    used = first_repeats(runs, looks.repeats, first_seed(runs))
    shown = question or next(iter(questions), Question(reference, reference, REFERENCE))
    parts = [
        _setting(name, [run for run in used if run.setting == name], arms, classes, rules, looks, shown)
        for name in settings
    ]
    decide(parts, primary, looks, leaking=bool(leaks))
    results: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arms": [
            {
                "name": arm.name,
                "kind": arm.kind,
                "of": arm.of,
                "reference": arm.reference,
                "reads_maps": reads_maps(arm),
                "options": arm.options,
            }
            for arm in arms
        ],
        "classes": list(classes),
        "rope": rules.rope,
        "level": LEVEL,
        "minimum_pairs": MINIMUM_PAIRS,
        "primary": None if question is None or primary is None else vars(primary) | {"against": question.against},
        "looks": looks.to_json(),
        "runs": {
            "finished": len(used),
            "planned": looks.expected * len(arms) * len(settings) if looks.expected else None,
        },
        "leaks": list(leaks),
        "maps": None if maps is None else [dict(row) for row in maps],
        "duplicates": None if duplicates is None else dict(duplicates),
        "tuning": None if tuning is None else dict(tuning),
        "starts": dict(starts or {}),
        "about": dict(about),
        "settings": [part for part, _ in parts],
    }
    results["warnings"] = [*warnings, *caveats(results, runs, looks)]
    return results | {"verdict": conclude(results)}


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
) -> tuple[dict[str, Any], Conditions]:
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
    part = {
        "name": name,
        "images": {"train": _span(train), "validation": _span(validation), "pool": _span(pool)},
        "ratio": where.ratio,
        "epochs": where.epochs,
        "early_epochs": min(EARLY_EPOCHS, where.epochs),
        "threshold": None if where.threshold is None else {"value": where.threshold, "fixed": where.threshold_fixed},
        "own_split": where.own_split,
        "completed": all(len(own) >= (looks.expected or 1) for own in by_arm.values()),
        "arms": {arm: summarize(own, where, classes) for arm, own in by_arm.items() if own},
        "contrasts": [
            contrast(question, by_arm, where)
            for question in contrasts(arms)
            # with a plan, those without runs count in the family as well
            if looks.expected or (by_arm[question.arm] and by_arm[question.against])
        ],
        "confusion": confusion(by_arm, shown, classes),
        "disagreements": disagreements(by_arm, shown),
    }
    return part, where


def _span(values: Sequence[int]) -> list[int]:
    return [int(min(values)), int(max(values))]
