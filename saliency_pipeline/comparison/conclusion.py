"""The verdict of a comparison in sentences: one on the primary question, and one line per contrast with a verdict.

Every sentence is about what was measured: "ended better" is a higher accuracy after the last epoch, "converged faster"
is 95 % of an arm's own final accuracy reached in fewer epochs, and the area under the first epochs is higher or lower.
"""

from __future__ import annotations

from saliency_pipeline.comparison.arms import REFERENCE
from saliency_pipeline.comparison.attribution import attribution, other_differences
from saliency_pipeline.comparison.headroom import clause
from saliency_pipeline.comparison.results import ContrastResult, MeasureResult, Results, SettingResult, Verdict
from saliency_pipeline.comparison.rules import AREA, FINAL, MEASURES, SPEED
from saliency_pipeline.comparison.verdicts import FASTER, LEAK, PRIMARY, SLOWER, WITHHELD
from saliency_pipeline.comparison.wording import points, unsigned, whole_share
from saliency_pipeline.figures.pages import p_value
from saliency_pipeline.statistics.contrast import (
    ALPHA,
    BETTER,
    EQUIVALENT,
    NO_DIFFERENCE,
    UNDECIDED,
    UNDERPOWERED,
    WORSE,
)
from saliency_pipeline.statistics.power import POWER


def conclude(results: Results) -> Verdict:
    """The verdict on the primary question, with one detail per contrast with a verdict and measure."""
    details = [
        _detail(results, part, contrast, measure)
        for part in results.settings
        for contrast in part.contrasts
        for measure in MEASURES
        if contrast[measure].family
    ]
    word, sentence = _headline(results)
    return Verdict(word, f"{sentence}.", tuple(details))


def _headline(results: Results) -> tuple[str, str]:
    """Word and sentence of the primary question."""
    primary = results.primary
    if primary is None:
        asked = any(c.role == REFERENCE for part in results.settings for c in part.contrasts)
        missing = "the primary question is about an arm or a data budget that is not among these"
        return WITHHELD, (
            f"No verdict on this data set: {missing if asked else 'no candidate is compared with a reference'}"
        )
    part = results.setting(primary.setting)
    contrast, place = part.contrast(primary.arm, primary.against), _place(results, part)
    if results.leaks:
        return LEAK, f"No verdict {place}: {'; '.join(reason.strip().rstrip('.') for reason in results.leaks)}"
    if contrast is None or contrast[primary.measure].verdict == WITHHELD:
        return WITHHELD, _withheld(results, place)
    result = contrast[primary.measure]
    if contrast.pairs and not result.differences:
        return WITHHELD, (
            f"No verdict {place}: the {_title(part, primary.measure)} needs epochs that were not validated; use "
            "--validate all, or the final accuracy as the primary question"
        )
    if result.verdict is None:
        return WITHHELD, (
            f"No verdict {place}: the {_title(part, primary.measure)} has no test over images without folds; "
            "use --folds, or the final accuracy as the primary question"
        )
    clauses = [_main(results, part, contrast, primary.measure, place)]
    clauses += other_differences(results, primary)
    clauses += attribution(results, part, contrast, primary.measure)
    clauses += _headroom(results, contrast.arm) if primary.measure == FINAL else []
    clauses += _secondary(part, contrast, primary.measure)
    return str(result.verdict), "; ".join(clauses)


def _withheld(results: Results, place: str) -> str:
    runs = results.runs
    if runs.planned is None:
        return f"No verdict {place}: no pair of runs is finished"
    return (
        f"No verdict yet {place}: {runs.finished} of {runs.planned} planned runs are finished; the verdict waits "
        "for the rest"
    )


def _main(results: Results, part: SettingResult, contrast: ContrastResult, measure: str, place: str) -> str:
    """The primary result: estimate, interval, p, and the verdict."""
    arm, against, result = contrast.arm, contrast.against, contrast[measure]
    word, pairs = result.verdict, contrast.pairs
    if result.statistics is None:
        return _single(contrast, place)
    if word == NO_DIFFERENCE:
        same = _title(part, measure)
        return f"{arm} and {against} have the same {same} in all {pairs} pairs of runs {place}: no difference in it"
    amount = _amount(part, contrast, measure)
    if word == UNDERPOWERED:
        return (
            f"{amount}: underpowered, because {pairs} pairs of runs {place} are too few for a verdict, which takes "
            f"{results.minimum_pairs}"
        )
    if word == EQUIVALENT:
        region = unsigned(results.rope, FINAL)
        reason = (
            f"the 95 % CI is within ±{region} points"
            if result.crossed
            else f"within ±{region} points with {whole_share(result.statistics.same)} % probability"
        )
        return f"{amount}, {_p(result.p_adjusted)}{_look(results)}: equivalent {place}, {reason}"
    look = _look(results)
    text = f"{amount}, {_p(result.p_adjusted)}{look}: {_claim(part, word, measure)} {place}"
    if word == UNDECIDED:
        difference = f"{unsigned(result.detectable, measure)} {'epochs' if measure == SPEED else 'points'}"
        text += f"; a true difference of {difference} would have been found in {100 * POWER:.0f} % of such comparisons"
        if look and len(results.looks.made) < results.looks.planned:
            text += "; further looks are planned"
    return text


def _single(contrast: ContrastResult, place: str) -> str:
    """A single pair: these two networks, image by image."""
    arm, against, images = contrast.arm, contrast.against, contrast.images
    start = f"underpowered: a single pair of runs {place} shows nothing about training again"
    if images is None:
        difference = contrast[FINAL].differences
        amount = points(difference[0].value) if difference else "an unknown number of"
        return f"{start}; {arm} ended {amount} points from {against}"
    differ = "differ" if images.p_holm < ALPHA else "are not shown to differ"
    return (
        f"{start}; the two networks {differ} on images of this kind: accuracy of {arm} minus that of {against} "
        f"{points(images.mean)} points (95 % CI over images {points(images.low)} to {points(images.high)}, "
        f"McNemar {_p(images.p_holm)})"
    )


def _secondary(part: SettingResult, contrast: ContrastResult, primary: str) -> list[str]:
    """The other measures of the primary contrast, where their own adjusted test is significant."""
    clauses = []
    for measure in MEASURES:
        result = contrast[measure]
        if measure != primary and result.verdict in (BETTER, WORSE, FASTER, SLOWER):
            claim = _claim(part, result.verdict, measure)
            estimate = _estimate(part, result, measure).replace(" (", ", ").rstrip(")")
            clauses.append(f"{claim} ({estimate}, {_p(result.p_adjusted)} after Holm)")
    return clauses


def _headroom(results: Results, arm: str) -> list[str]:
    """The headroom of the use of an arm, at most one clause."""
    for row in results.headroom:
        if arm in (row.oracle.arm, *(gain.arm for gain in row.others)):
            text = clause(row, arm)
            return [] if text is None else [text]
    return []


def _detail(results: Results, part: SettingResult, contrast: ContrastResult, measure: str) -> str:
    """One line: what was measured, the estimate, the adjusted p, P(A > B) and the verdict."""
    result, arm, against = contrast[measure], contrast.arm, contrast.against
    where = f"{part.name}: " if len(results.settings) > 1 else ""
    title = "speed" if measure == SPEED else _title(part, measure)
    start = f"{where}{arm} vs. {against}, {title}"
    word = "no verdict, because of a leak" if result.verdict == LEAK else _claim(part, result.verdict, measure)
    superior = result.superiority
    if superior is None:
        return f"{start}: {contrast.pairs} pair{'' if contrast.pairs == 1 else 's'} of runs, {word}"
    adjusted = "" if result.family == PRIMARY else " after Holm"
    p = "" if result.p_adjusted is None else f", {_p(result.p_adjusted)}{adjusted}"
    return (
        f"{start}: {_estimate(part, result, measure)}{p}, {contrast.pairs} pairs: {word}; P({arm} "
        f"{'faster than' if measure == SPEED else '>'} {against}) = {superior.probability:.2f} (95 % CI "
        f"{superior.low:.2f} to {superior.high:.2f}{', over seeds' if part.own_split else ''})"
    )


def _title(part: SettingResult, measure: str) -> str:
    """Name of a measure."""
    return {
        FINAL: "final accuracy",
        AREA: f"area under the first {part.early_epochs} epochs",
        SPEED: "time to 95 % of its own final accuracy",
    }[measure]


def _claim(part: SettingResult, word: str | None, measure: str) -> str:
    """A verdict in words that fit the measure."""
    first = f"over the first {part.early_epochs} epochs"
    claims = {
        (FINAL, BETTER): "ended better",
        (FINAL, WORSE): "ended worse",
        (AREA, BETTER): f"higher {first}",
        (AREA, WORSE): f"lower {first}",
        (SPEED, FASTER): "converged faster",
        (SPEED, SLOWER): "converged more slowly",
    }
    return claims.get((measure, word or ""), word or "")


def _amount(part: SettingResult, contrast: ContrastResult, measure: str) -> str:
    """The subject and its estimate.

    On the shards' own split the interval is that over images and seeds.
    """
    arm, against, estimate = contrast.arm, contrast.against, _estimate(part, contrast[measure], measure)
    if measure == SPEED:
        return f"{arm} vs. {against}: {estimate}"
    subject = "points" if measure == FINAL else f"points of area under the first {part.early_epochs} epochs"
    return f"{arm}: " + estimate.replace("points", f"{subject} vs. {against}", 1)


def _estimate(part: SettingResult, result: MeasureResult, measure: str) -> str:
    """Mean difference with its 95 % interval."""
    source = result.crossed if part.own_split and result.crossed else result.statistics
    assert source is not None
    mean, low, high = source.mean, source.low, source.high
    if measure != SPEED:
        return f"{points(mean)} points (95 % CI {points(low)} to {points(high)})"
    return f"reached 95 % of its own final accuracy {_epochs(mean)} (95 % CI {_times(low, high)})"


def _epochs(value: float) -> str:
    """A difference of times in words.

    >>> _epochs(-1.3), _epochs(1.0), _epochs(0.0)
    ('1.3 epochs earlier', '1.0 epochs later', '0.0 epochs earlier')
    """
    return f"{abs(value):.1f} epochs {'later' if value > 0 else 'earlier'}"


def _times(low: float, high: float) -> str:
    """An interval of a difference of times, in epochs.

    >>> _times(-4.8, -1.3), _times(-2.0, 1.9)
    ('1.3 to 4.8', '2.0 earlier to 1.9 later')
    """
    if low * high > 0:
        near, far = sorted((abs(low), abs(high)))
        return f"{near:.1f} to {far:.1f}"
    return f"{abs(low):.1f} earlier to {abs(high):.1f} later"


def _p(p: float | None) -> str:
    """A p value with its relation; none is 0.

    >>> _p(0.0321), _p(1e-9)
    ('p = 0.032', 'p < 0.001')
    """
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _look(results: Results) -> str:
    looks = results.looks
    if looks.planned < 2 or not looks.made:
        return ""
    return f" at look {len(looks.made)} of {looks.planned} (level {looks.made[-1].level:.2g})"


def _place(results: Results, part: SettingResult) -> str:
    """Scope of a verdict: one data set carries no general claim."""
    split = "this split of this data set" if part.own_split else "this data set"
    runs = ", of runs given by hand" if results.about.get("given") else ""
    return f"on {split}{runs}" + (f" ({part.name})" if len(results.settings) > 1 else "")
