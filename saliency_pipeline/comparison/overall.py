"""Results and verdict over several data sets, from a finished comparison on each. No file is read here.

Only the primary question, which all comparisons share, has a verdict; other contrasts of the same measure and data
budget are estimated beside it. A data set is left out, with the reason, where its own comparison allows no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import stats

from saliency_pipeline.comparison.arms import DESCRIPTIVE
from saliency_pipeline.comparison.overall_results import (
    FORMAT,
    FORMAT_VERSION,
    ArmInterquartile,
    DataSet,
    DataSetEstimate,
    LeftOut,
    OverallQuestion,
    OverallResults,
    SharedArm,
)
from saliency_pipeline.comparison.results import ComparedArm, ContrastResult, PrimaryQuestion, Results, Verdict
from saliency_pipeline.comparison.rules import AREA, FINAL, SPEED
from saliency_pipeline.comparison.verdicts import WITHHELD
from saliency_pipeline.comparison.wording import difference
from saliency_pipeline.statistics.crossed import Crossed
from saliency_pipeline.statistics.hierarchy import (
    BETTER,
    EQUIVALENT,
    MINIMUM_DATASETS,
    TOO_FEW,
    WORSE,
    Estimate,
    Hierarchy,
    Posterior,
    hierarchy,
    verdict,
)
from saliency_pipeline.statistics.interquartile import interquartile
from saliency_pipeline.statistics.power import LEVEL, error_of_interval

MEASURES = {
    FINAL: "final validation accuracy",
    AREA: "area under the first epochs",
    SPEED: "epochs to 95 % of the own final accuracy",
}

# a measure in epochs is better where it is lower, and has no region of practical equivalence
_SPEED_WORDS = {BETTER: "slower", WORSE: "faster"}
# a higher area is not a better final accuracy
_AREA_WORDS = {BETTER: "higher early", WORSE: "lower early"}


@dataclass(frozen=True)
class Finished:
    """A finished comparison on one data set, with the set's unique name and the relative path of its own page."""

    name: str
    report: str
    results: Results


def overall(comparisons: Sequence[Finished], warnings: Sequence[str] = ()) -> OverallResults:
    """The results over all data sets; the same arguments give the same.

    The comparisons have the same arms, primary question and region of practical equivalence; `warnings` come before the
    computed ones.
    """
    first = comparisons[0].results
    primary, rope = _primary(first), float(first.rope)
    reasons = {each.name: reason for each in comparisons if (reason := why_left_out(each.results)) is not None}
    used = [each for each in comparisons if each.name not in reasons]
    questions = [
        _question(contrast, primary, used, rope)
        for contrast in first.setting(primary.setting).contrasts
        if contrast.role != DESCRIPTIVE
    ]
    questions.sort(key=lambda question: (question.arm, question.against) != (primary.arm, primary.against))
    results = OverallResults(
        FORMAT,
        FORMAT_VERSION,
        tuple(SharedArm(arm.name, arm.kind, arm.of, arm.reference, arm.options) for arm in first.arms),
        primary,
        rope,
        LEVEL,
        MINIMUM_DATASETS,
        tuple(_dataset(each, primary) for each in used),
        tuple(LeftOut(each.name, each.report, reasons[each.name]) for each in comparisons if each.name in reasons),
        tuple(questions),
        tuple(_interquartile(first.arms, primary, used)),
        (*warnings, *_warnings(comparisons, reasons)),
        Verdict("", "", ()),
    )
    return replace(results, verdict=conclude(results))


def why_left_out(results: Results) -> str | None:
    """Reason why a comparison is left out; None if it counts."""
    primary = _primary(results)
    setting = results.setting(primary.setting)
    if results.leaks:
        return f"leaks were accepted: {results.leaks[0]}"
    contrast = setting.contrast(primary.arm, primary.against)
    if contrast is None:
        return f"{primary.arm} was not compared with {primary.against}"
    if contrast[primary.measure].verdict == WITHHELD:
        return "its verdict is withheld: the planned runs are not finished"
    looks = results.looks
    if looks.made and len(looks.made) < looks.planned and not looks.made[-1].decided:
        return f"it is at look {len(looks.made)} of {looks.planned} and not decided: finish it first"
    estimate = estimate_of(contrast, primary.measure, own_split=setting.own_split)
    return estimate if isinstance(estimate, str) else None


def estimate_of(contrast: ContrastResult, measure: str, *, own_split: bool) -> Estimate | str:
    """Mean difference, its standard error and degrees of freedom; or the reason why there is no such error.

    With folds the error is that of Nadeau and Bengio; on the shards' own split that over images and seeds.
    """
    measured = contrast[measure]
    interval = measured.crossed if own_split else measured.statistics
    if interval is None:
        if contrast.pairs and not measured.differences:
            return f"the {MEASURES[measure]} needs epochs that were not validated"
        if own_split:
            return f"on the shards' own split the {MEASURES[measure]} has no standard error that counts images"
        return "it has fewer than two pairs of runs"
    pairs = interval.seeds if isinstance(interval, Crossed) else contrast.pairs
    mean, freedom = float(interval.mean), pairs - 1
    error = error_of_interval(mean, interval.low, interval.high, freedom)
    return Estimate(mean, error, freedom) if error > 0 else "its differences do not vary"


def conclude(results: OverallResults) -> Verdict:
    """The verdict on the primary question, with one detail per further statement."""
    primary, main, count = results.primary, results.questions[0], len(results.datasets)
    arm, against, measure = primary.arm, primary.against, primary.measure
    title = "" if measure == FINAL else f", {MEASURES[measure]}"
    if main.posterior is None:
        own = ", ".join(f"{each.dataset} {amount(each.mean, measure)}" for each in main.estimates)
        noun = "data set allows" if count == 1 else "data sets allow"
        sentence = f"{count} {noun} no general verdict, which takes {results.minimum_datasets} or more"
        sentence += f"; {arm} vs. {against}{title}: {own}." if own else "."
    else:
        within = f" within ±{_plain(results.rope, measure)}" if main.verdict == EQUIVALENT else ""
        interval = _interval(main.posterior, measure)
        sentence = f"Across {count} data sets {arm}: {interval} vs. {against}{title}: {main.verdict}{within}."
    return Verdict(str(main.verdict), sentence, tuple(_details(results)))


def amount(value: float, measure: str) -> str:
    """A difference with its sign and unit.

    >>> amount(0.0123, "final"), amount(-0.25, "speed"), amount(-0.0001, "area")
    ('+1.2 points', '−0.25 epochs', '0.0 points')
    """
    return f"{difference(value, measure)} {'epochs' if measure == SPEED else 'points'}"


def probability(value: float) -> str:
    """A posterior probability in percent; none is certain.

    >>> probability(0.123), probability(0.99999), probability(0.0)
    ('12.3 %', '> 99.9 %', '< 0.1 %')
    """
    if value < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if value > 0.999 else f"{100 * value:.1f} %"


def _details(results: OverallResults) -> list[str]:
    measure, details = results.primary.measure, []
    for question in results.questions:
        posterior = question.posterior
        if posterior is None:
            continue
        pair = f"{question.arm} vs. {question.against}"
        if question.verdict is None:
            details.append(f"{pair}: {_interval(posterior, measure)}, no verdict (not the primary question).")
            continue
        sign = "negative" if measure == SPEED else "positive"
        chance = 1 - posterior.positive if measure == SPEED else posterior.positive
        details.append(f"Probability that the mean over data sets is {sign}: {probability(chance)}.")
        beyond = posterior.next
        if measure == SPEED:
            details.append(f"{pair} on one more data set: faster (probability {probability(beyond.below)}).")
        else:
            margin = _plain(results.rope, measure)
            details.append(
                f"{pair} on one more data set: better by more than {margin} (probability "
                f"{probability(beyond.above)}), within ±{margin} ({probability(beyond.within)}), worse by more "
                f"than {margin} ({probability(beyond.below)})."
            )
    return details


def _interval(posterior: Posterior, measure: str) -> str:
    return (
        f"{amount(posterior.median, measure)} (95 % credible interval {difference(posterior.low, measure)} to "
        f"{difference(posterior.high, measure)})"
    )


def _plain(value: float, measure: str) -> str:
    return amount(value, measure).lstrip("+")


def _primary(results: Results) -> PrimaryQuestion:
    """The primary question, which every comparison over data sets has."""
    if results.primary is None:
        raise ValueError("no primary question")
    return results.primary


def _question(
    contrast: ContrastResult, primary: PrimaryQuestion, used: Sequence[Finished], rope: float
) -> OverallQuestion:
    """One contrast over all data sets that have an estimate of it."""
    measure, estimates = primary.measure, {}
    for each in used:
        setting = each.results.setting(primary.setting)
        own = setting.contrast(contrast.arm, contrast.against)
        estimate = "" if own is None else estimate_of(own, measure, own_split=setting.own_split)
        if isinstance(estimate, Estimate):
            estimates[each.name] = estimate
    posterior: Hierarchy | None = None
    if len(estimates) >= MINIMUM_DATASETS:
        posterior = hierarchy(list(estimates.values()), rope=0.0 if measure == SPEED else rope)
    word = None
    if (contrast.arm, contrast.against) == (primary.arm, primary.against):
        word = TOO_FEW if posterior is None else verdict(posterior)
        word = {SPEED: _SPEED_WORDS, AREA: _AREA_WORDS}.get(measure, {}).get(word, word)
    shrunken = posterior.shrunken if posterior else [None] * len(estimates)
    return OverallQuestion(
        contrast.arm,
        contrast.against,
        contrast.role,
        measure,
        tuple(_row(name, estimate, value) for (name, estimate), value in zip(estimates.items(), shrunken, strict=True)),
        # the shrunken means are those of the estimates
        posterior and Posterior(**{field.name: getattr(posterior, field.name) for field in fields(Posterior)}),
        word,
    )


def _row(name: str, estimate: Estimate, shrunken: float | None) -> DataSetEstimate:
    reach = float(stats.t.ppf((1 + LEVEL) / 2, estimate.freedom)) * estimate.error
    interval = estimate.mean - reach, estimate.mean + reach
    return DataSetEstimate(name, estimate.mean, estimate.error, estimate.freedom, *interval, shrunken)


def _dataset(each: Finished, primary: PrimaryQuestion) -> DataSet:
    setting = each.results.setting(primary.setting)
    contrast = setting.contrast(primary.arm, primary.against)
    # without it the data set is left out
    assert contrast is not None
    return DataSet(
        each.name,
        each.report,
        len(each.results.classes),
        setting.images,
        contrast.pairs,
        setting.own_split,
        contrast[primary.measure].verdict,
        each.results.verdict.sentence,
    )


def _interquartile(
    arms: Sequence[ComparedArm], primary: PrimaryQuestion, used: Sequence[Finished]
) -> list[ArmInterquartile]:
    """Interquartile mean of the final accuracy of each arm that has runs on every data set."""
    rows = []
    for arm in arms:
        scores = [
            np.array([run.final for run in setting.arms[arm.name].runs], np.float64)
            for setting in (each.results.setting(primary.setting) for each in used)
            if arm.name in setting.arms
        ]
        if scores and len(scores) == len(used) and all(map(len, scores)):
            rows.append(ArmInterquartile(arm.name, arm.kind, sum(map(len, scores)), **vars(interquartile(scores))))
    return rows


def _warnings(comparisons: Sequence[Finished], reasons: Mapping[str, str]) -> list[str]:
    warnings = [f"{name} is left out: {reason}" for name, reason in reasons.items()]
    used = [each for each in comparisons if each.name not in reasons]
    for each in used:
        looks = each.results.looks
        if looks.planned > 1 and looks.made and looks.made[-1].fraction < 1:
            warnings.append(
                f"{each.name} stopped at look {len(looks.made)} of {looks.planned}: the difference of a comparison "
                "that stopped early is overestimated on average"
            )
    plans = {each.name: each.results.about.get("plan") or {} for each in used}
    names = sorted({name for plan in plans.values() for name in plan.get("shared", {})} - {"device", "precision"})
    differing = [name for name in names if len({repr(plan.get("shared", {}).get(name)) for plan in plans.values()}) > 1]
    differing += [name for name in ("folds", "repeats") if len({repr(plan.get(name)) for plan in plans.values()}) > 1]
    if differing:
        warnings.append(f"training options differ between data sets: {', '.join(differing)}")
    return warnings
