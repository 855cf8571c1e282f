"""From finished comparisons on several data sets to results over all of them, and their verdict. No file is read here.

Only the primary question, which all comparisons share, has a verdict; other contrasts of the same measure and data
budget are estimated beside it. A data set is left out, with the reason, where its own comparison allows no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from saliency_pipeline.comparison.rules import SPEED
from saliency_pipeline.comparison.wording import difference
from saliency_pipeline.statistics.hierarchy import (
    BETTER,
    EQUIVALENT,
    MINIMUM_DATASETS,
    TOO_FEW,
    WORSE,
    Estimate,
    Hierarchy,
    hierarchy,
    verdict,
)
from saliency_pipeline.statistics.interquartile import interquartile
from saliency_pipeline.statistics.power import LEVEL, error_of_interval

Results = Mapping[str, Any]

FORMAT, FORMAT_VERSION = "salpipe-datasets", 1
MEASURES = {
    "final": "final validation accuracy",
    "area": "area under the first epochs",
    SPEED: "epochs to 95 % of the own final accuracy",
}

_WITHHELD = "withheld"
# a measure in epochs is better where it is lower, and has no region of practical equivalence
_SPEED_WORDS = {BETTER: "slower", WORSE: "faster"}
# an area that is higher is no better end
_AREA_WORDS = {BETTER: "higher early", WORSE: "lower early"}


@dataclass(frozen=True)
class Finished:
    """A finished comparison on one data set.

    Attributes:
        name: of the data set, unique among those compared.
        report: relative path of its own page.
        results: its results.json, format version 2.
    """

    name: str
    report: str
    results: Results


def overall(comparisons: Sequence[Finished], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The results over all data sets, as JSON values; the same arguments give the same.

    Args:
        comparisons: one per data set, with the same arms, primary question and region of practical equivalence.
        warnings: sentences that come before the computed ones.
    """
    first = comparisons[0].results
    primary, rope = first["primary"], float(first["rope"])
    reasons = {each.name: reason for each in comparisons if (reason := why_left_out(each.results)) is not None}
    used = [each for each in comparisons if each.name not in reasons]
    questions = [
        _question(contrast, primary, used, rope)
        for contrast in _setting(first, primary)["contrasts"]
        if contrast["role"] != "descriptive"
    ]
    is_primary = _is(primary)
    questions.sort(key=lambda question: not is_primary(question))
    results: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arms": [{name: arm[name] for name in ("name", "kind", "of", "reference", "options")} for arm in first["arms"]],
        "primary": dict(primary),
        "rope": rope,
        "level": LEVEL,
        "minimum_datasets": MINIMUM_DATASETS,
        "datasets": [_dataset(each, primary) for each in used],
        "left_out": [
            {"name": each.name, "report": each.report, "reason": reasons[each.name]}
            for each in comparisons
            if each.name in reasons
        ],
        "questions": questions,
        "interquartile": _interquartile(first["arms"], primary, used),
        "warnings": [*warnings, *_warnings(comparisons, reasons)],
    }
    return results | {"verdict": conclude(results)}


def why_left_out(results: Results) -> str | None:
    """Why a comparison does not count, None where it does."""
    primary = results["primary"]
    if results["leaks"]:
        return f"leaks were accepted: {results['leaks'][0]}"
    contrast = next(filter(_is(primary), _setting(results, primary)["contrasts"]), None)
    if contrast is None:
        return f"{primary['arm']} was not compared with {primary['against']}"
    if contrast[primary["measure"]]["verdict"] == _WITHHELD:
        return "its verdict is withheld: the planned runs are not finished"
    looks = results.get("looks") or {}
    made = looks.get("made") or []
    if made and len(made) < looks.get("planned", 1) and not made[-1]["decided"]:
        return f"it is at look {len(made)} of {looks['planned']} and not decided: finish it first"
    estimate = estimate_of(contrast, primary["measure"], own_split=_setting(results, primary)["own_split"])
    return estimate if isinstance(estimate, str) else None


def estimate_of(contrast: Results, measure: str, *, own_split: bool) -> Estimate | str:
    """Mean difference, its standard error and degrees of freedom; or why there is no such error, as a str.

    With folds the error is that of Nadeau and Bengio; on the shards' own split that over images and seeds.
    """
    measured = contrast[measure]
    if own_split:
        interval = measured.get("crossed")
        if interval is None:
            return f"on the shards' own split the {MEASURES[measure]} has no standard error that counts images"
        pairs = interval["seeds"]
    else:
        interval, pairs = measured["statistics"], contrast["pairs"]
        if interval is None:
            return "it has fewer than two pairs of runs"
    mean, freedom = float(interval["mean"]), pairs - 1
    error = error_of_interval(mean, interval["low"], interval["high"], freedom)
    return Estimate(mean, error, freedom) if error > 0 else "its differences do not vary"


def conclude(results: Results) -> dict[str, Any]:
    """The verdict on the primary question: `word`, `sentence`, and `details`, one sentence per further statement."""
    primary, questions = results["primary"], results["questions"]
    arm, against, measure = primary["arm"], primary["against"], primary["measure"]
    main, count = questions[0], len(results["datasets"])
    title = "" if measure == "final" else f", {MEASURES[measure]}"
    word, posterior = main["verdict"], main["posterior"]
    if word == TOO_FEW:
        own = ", ".join(f"{each['dataset']} {amount(each['mean'], measure)}" for each in main["estimates"])
        noun = "data set allows" if count == 1 else "data sets allow"
        sentence = f"{count} {noun} no general verdict, which takes {results['minimum_datasets']} or more"
        sentence += f"; {arm} vs. {against}{title}: {own}." if own else "."
    else:
        within = f" within ±{_plain(results['rope'], measure)}" if word == EQUIVALENT else ""
        sentence = (
            f"Across {count} data sets {arm}: {_interval(posterior, measure)} vs. {against}{title}: {word}{within}."
        )
    return {"word": word, "sentence": sentence, "details": _details(results)}


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


def _details(results: Results) -> list[str]:
    measure, details = results["primary"]["measure"], []
    for question in results["questions"]:
        posterior = question["posterior"]
        if posterior is None:
            continue
        pair = f"{question['arm']} vs. {question['against']}"
        if question["verdict"] is None:
            details.append(f"{pair}: {_interval(posterior, measure)}, no verdict (not the primary question).")
            continue
        sign = "negative" if measure == SPEED else "positive"
        chance = 1 - posterior["positive"] if measure == SPEED else posterior["positive"]
        details.append(f"Probability that the mean over data sets is {sign}: {probability(chance)}.")
        beyond = posterior["next"]
        if measure == SPEED:
            details.append(f"{pair} on one more data set: faster (probability {probability(beyond['below'])}).")
        else:
            margin = _plain(results["rope"], measure)
            details.append(
                f"{pair} on one more data set: better by more than {margin} (probability "
                f"{probability(beyond['above'])}), within ±{margin} ({probability(beyond['within'])}), worse by more "
                f"than {margin} ({probability(beyond['below'])})."
            )
    return details


def _interval(posterior: Results, measure: str) -> str:
    return (
        f"{amount(posterior['median'], measure)} (95 % credible interval {difference(posterior['low'], measure)} to "
        f"{difference(posterior['high'], measure)})"
    )


def _plain(value: float, measure: str) -> str:
    return amount(value, measure).lstrip("+")


def _is(primary: Results) -> Any:
    return lambda contrast: (contrast["arm"], contrast["against"]) == (primary["arm"], primary["against"])


def _setting(results: Results, primary: Results) -> Results:
    return next(setting for setting in results["settings"] if setting["name"] == primary["setting"])


def _question(contrast: Results, primary: Results, used: Sequence[Finished], rope: float) -> dict[str, Any]:
    """One contrast over all data sets that have an estimate of it."""
    measure, estimates = primary["measure"], {}
    for each in used:
        setting = _setting(each.results, primary)
        own = next(filter(_is(contrast), setting["contrasts"]), None)
        estimate = "" if own is None else estimate_of(own, measure, own_split=setting["own_split"])
        if isinstance(estimate, Estimate):
            estimates[each.name] = estimate
    posterior: Hierarchy | None = None
    if len(estimates) >= MINIMUM_DATASETS:
        posterior = hierarchy(list(estimates.values()), rope=0.0 if measure == SPEED else rope)
    word = None
    if _is(primary)(contrast):
        word = TOO_FEW if posterior is None else verdict(posterior)
        word = {SPEED: _SPEED_WORDS, "area": _AREA_WORDS}.get(measure, {}).get(word, word)
    shrunken = posterior.shrunken if posterior else [None] * len(estimates)
    return {
        "arm": contrast["arm"],
        "against": contrast["against"],
        "role": contrast["role"],
        "measure": measure,
        "estimates": [
            _row(name, estimate, value) for (name, estimate), value in zip(estimates.items(), shrunken, strict=True)
        ],
        "posterior": None if posterior is None else {n: v for n, v in asdict(posterior).items() if n != "shrunken"},
        "verdict": word,
    }


def _row(name: str, estimate: Estimate, shrunken: float | None) -> dict[str, Any]:
    reach = float(stats.t.ppf((1 + LEVEL) / 2, estimate.freedom)) * estimate.error
    interval = {"low": estimate.mean - reach, "high": estimate.mean + reach}
    return {"dataset": name, **asdict(estimate), **interval, "shrunken": shrunken}


def _dataset(each: Finished, primary: Results) -> dict[str, Any]:
    setting = _setting(each.results, primary)
    contrast = next(filter(_is(primary), setting["contrasts"]))
    return {
        "name": each.name,
        "report": each.report,
        "classes": len(each.results["classes"]),
        "images": setting["images"],
        "pairs": contrast["pairs"],
        "own_split": setting["own_split"],
        "verdict": contrast[primary["measure"]]["verdict"],
        "sentence": each.results["verdict"]["sentence"],
    }


def _interquartile(arms: Sequence[Results], primary: Results, used: Sequence[Finished]) -> list[dict[str, Any]]:
    """Interquartile mean of the final accuracy of each arm that has runs on every data set."""
    rows = []
    for arm in arms:
        scores = [
            np.array([run["final"] for run in setting["arms"][arm["name"]]["runs"]], np.float64)
            for setting in (_setting(each.results, primary) for each in used)
            if arm["name"] in setting["arms"]
        ]
        if scores and len(scores) == len(used) and all(map(len, scores)):
            row = {"name": arm["name"], "kind": arm["kind"], "runs": sum(map(len, scores))}
            rows.append(row | asdict(interquartile(scores)))
    return rows


def _warnings(comparisons: Sequence[Finished], reasons: Mapping[str, str]) -> list[str]:
    warnings = [f"{name} is left out: {reason}" for name, reason in reasons.items()]
    used = [each for each in comparisons if each.name not in reasons]
    for each in used:
        looks = each.results.get("looks") or {}
        made = looks.get("made") or []
        if looks.get("planned", 1) > 1 and made and made[-1].get("fraction", 1.0) < 1:
            warnings.append(
                f"{each.name} stopped at look {len(made)} of {looks['planned']}: the difference of a comparison that "
                "stopped early is overestimated on average"
            )
    plans = {each.name: (each.results.get("about") or {}).get("plan") or {} for each in used}
    names = sorted({name for plan in plans.values() for name in plan.get("shared", {})} - {"device", "precision"})
    differing = [name for name in names if len({repr(plan.get("shared", {}).get(name)) for plan in plans.values()}) > 1]
    differing += [name for name in ("folds", "repeats") if len({repr(plan.get(name)) for plan in plans.values()}) > 1]
    if differing:
        warnings.append(f"training options differ between data sets: {', '.join(differing)}")
    return warnings
