"""Headroom: what a use of maps gains with true boxes or masks as maps, and the share that other maps recover of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from saliency_pipeline.comparison.arms import CANDIDATE, DESCRIPTIVE, Arm, Question, first_reference
from saliency_pipeline.comparison.contrasts import Conditions, conditions, contrast
from saliency_pipeline.comparison.looks import Looks
from saliency_pipeline.comparison.map_results import Gain, Headroom
from saliency_pipeline.comparison.results import MeasureResult
from saliency_pipeline.comparison.rules import Rules
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.comparison.use_arms import maps_of, same_use
from saliency_pipeline.comparison.verdicts import LEAK, WITHHELD
from saliency_pipeline.comparison.wording import points, whole_percent
from saliency_pipeline.statistics.contrast import UNDERPOWERED
from saliency_pipeline.statistics.crossed import Crossed
from saliency_pipeline.statistics.power import MINIMUM_PAIRS, error_of_interval, standard_error
from saliency_pipeline.statistics.ratio import Estimate, Ratio, ratio_of_gains
from saliency_pipeline.training.config import CENTER_PRIOR, ORACLE, OWN, SELF

HEADROOM, NO_HEADROOM, NOT_SHOWN = "headroom", "no headroom", "not shown"

SHOWN = (CENTER_PRIOR, OWN, SELF)
"""Maps whose share is computed, in the order of the report; `center-prior` is the share that needs no map at all."""

_NAMES = {OWN: "its maps", SELF: "self maps", CENTER_PRIOR: "center-prior"}


def headrooms(
    runs: Sequence[Run], arms: Sequence[Arm], setting: str, rules: Rules, looks: Looks, *, leaking: bool
) -> tuple[Headroom, ...]:
    """The headroom of every use that has an oracle arm with runs, in the final accuracy.

    The intervals are those of single contrasts, not adjusted for their number.

    Args:
        runs: those of one data budget that count.
        arms: all arms.
        setting: name of the data budget.
        rules: of the analysis.
        looks: the looks that were made.
        leaking: true if accepted leaks forbid every verdict.
    """
    by_arm = {arm.name: [run for run in runs if run.arm == arm.name] for arm in arms}
    where = conditions(by_arm, first_reference(arms), rules)
    rows = []
    for oracle in arms:
        if oracle.kind != CANDIDATE or maps_of(oracle.options) != ORACLE:
            continue
        against = oracle.reference or first_reference(arms)
        others = [
            arm
            for maps in SHOWN
            for arm in arms
            if maps_of(arm.options) == maps and same_use(arm.options, oracle.options)
            if arm.name != against and by_arm[arm.name]
        ]
        shared = _shared(by_arm, (against, oracle.name, *(arm.name for arm in others)))
        if shared[oracle.name]:
            rows.append(_headroom(oracle, others, against, setting, shared, where, looks, leaking=leaking))
    return tuple(rows)


def clause(row: Headroom, arm: str) -> str | None:
    """The headroom in the sentence of the verdict on an arm; None where there is none to state."""
    oracle = _amount(row.oracle)
    if row.word == NO_HEADROOM:
        return f"no headroom: even true boxes or masks as maps gain nothing ({oracle}), so better maps would not help"
    if row.word == NOT_SHOWN:
        return f"headroom is not shown: true boxes or masks as maps gain {oracle}"
    if row.word != HEADROOM:
        return None
    text = f"true boxes or masks as maps gain {oracle}"
    others = {gain.arm: gain for gain in row.others}
    own = others.get(arm) or others.get(row.use)
    return text if own is None else f"{text}, of which {own.arm} recovers {_share(own)}"


def _headroom(
    oracle: Arm,
    others: Sequence[Arm],
    against: str,
    setting: str,
    by_arm: Mapping[str, Sequence[Run]],
    where: Conditions,
    looks: Looks,
    *,
    leaking: bool,
) -> Headroom:
    pairs = len(by_arm[oracle.name])
    whole = _final(oracle.name, against, by_arm, where)
    gains = [_gain(oracle, whole, where, None)]
    for arm in others:
        part = _final(arm.name, against, by_arm, where)
        ratio = _ratio(part, whole, _final(arm.name, oracle.name, by_arm, where), where)
        gains.append(_gain(arm, part, where, ratio))
    names = [arm.name for arm in others if maps_of(arm.options) == OWN]
    use = names[0] if names else oracle.name.removeprefix(f"{ORACLE}-")
    if leaking:
        word = LEAK
    elif looks.expected is not None and pairs < looks.expected:
        word = WITHHELD
    else:
        word = _word(gains[0], pairs, where.rope)
    row = Headroom(use, setting, against, pairs, word, gains[0], tuple(gains[1:]), "")
    return replace(row, sentence=_sentence(row))


def _word(oracle: Gain, pairs: int, rope: float) -> str:
    """No headroom where the whole interval is below the region of practical equivalence's upper end."""
    if oracle.low is None or oracle.high is None or pairs < MINIMUM_PAIRS:
        return UNDERPOWERED
    return HEADROOM if oracle.low > 0 else NO_HEADROOM if oracle.high <= rope else NOT_SHOWN


def _shared(by_arm: Mapping[str, Sequence[Run]], names: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of some arms of the pairs that all of them have."""
    common = set.intersection(*({run.pair for run in by_arm[name]} for name in names))
    return {name: [run for run in by_arm[name] if run.pair in common] for name in names}


def _final(arm: str, against: str, by_arm: Mapping[str, Sequence[Run]], where: Conditions) -> MeasureResult:
    return contrast(Question(arm, against, DESCRIPTIVE), by_arm, where).final


def _gain(arm: Arm, result: MeasureResult, where: Conditions, ratio: Ratio | None) -> Gain:
    source = result.crossed if where.own_split else result.statistics
    values = [each.value for each in result.differences]
    mean = source.mean if source else sum(values) / len(values)
    interval = (source.low, source.high) if source else (None, None)
    share = (ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)
    return Gain(arm.name, maps_of(arm.options), mean, *interval, *share)


def _ratio(part: MeasureResult, whole: MeasureResult, difference: MeasureResult, where: Conditions) -> Ratio | None:
    """The share of the oracle's gain, None where it is not defined."""
    estimates, variances, freedom = [], [], 0
    for result in (part, whole, difference):
        source = result.crossed if where.own_split else result.statistics
        if source is None:
            return None
        freedom = (source.seeds if isinstance(source, Crossed) else source.pairs) - 1
        error = error_of_interval(source.mean, source.low, source.high, freedom)
        estimates.append(Estimate(source.mean, error))
        # errors have a lower bound where differences are equal, which no covariance follows from
        observed = error if isinstance(source, Crossed) else standard_error(source.sd, source.pairs, where.ratio)
        variances.append(observed**2)
    covariance = (variances[0] + variances[1] - variances[2]) / 2
    return ratio_of_gains(estimates[0], estimates[1], covariance, freedom)


def _sentence(row: Headroom) -> str:
    start = f"headroom of {row.use} over {row.against}"
    if row.word == LEAK:
        return f"{start}: none is stated, because of a leak"
    if row.word == WITHHELD:
        return f"{start}: withheld, since not all planned runs are finished"
    parts = [f"true boxes or masks as maps gain {_amount(row.oracle)}"]
    if row.word == UNDERPOWERED:
        parts[0] = f"underpowered, with {row.pairs} pair{'' if row.pairs == 1 else 's'} of runs; {parts[0]}"
    elif row.word == NOT_SHOWN:
        parts[0] = f"not shown; {parts[0]}"
    elif row.word == NO_HEADROOM:
        parts[0] = f"none; even true boxes or masks as maps gain nothing ({_amount(row.oracle)})"
    for gain in row.others:
        name = _NAMES[gain.maps]
        if sum(other.maps == gain.maps for other in row.others) > 1:
            name = f"{name} ({gain.arm})"
        share = "" if gain.share is None else f", {_share(gain)} of it"
        parts.append(f"{name} {points(gain.mean)}{share}")
    return f"{start}: {'; '.join(parts)}"


def _amount(gain: Gain) -> str:
    interval = "" if gain.low is None else f" (95 % CI {points(gain.low)} to {points(gain.high)})"
    return f"{points(gain.mean)} points{interval}"


def _share(gain: Gain) -> str:
    if gain.share is None or gain.share_low is None or gain.share_high is None:
        return "an unknown share"
    value, low, high = (whole_percent(each) for each in (gain.share, gain.share_low, gain.share_high))
    return f"{value} % (95 % CI {low} to {high} %)"
