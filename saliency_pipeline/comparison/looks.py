"""Looks: the planned analyses of a comparison whose repeats are added one after another, and the level of each.

Alpha is spent over the looks (Lan & DeMets 1983, O'Brien-Fleming type; see statistics.sequential). A look is made when
the runs of its repeats are finished; later repeats do not count for it. The comparison ends at the first look whose
primary test is significant, or at the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saliency_pipeline.comparison.arms import Question
from saliency_pipeline.comparison.contrasts import conditions, contrast, p_of
from saliency_pipeline.comparison.results import Look
from saliency_pipeline.comparison.rules import Rules
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.statistics.power import ALPHA, MINIMUM_PAIRS
from saliency_pipeline.statistics.sequential import information, levels


@dataclass(frozen=True)
class Looks:
    """The looks of a comparison.

    Attributes:
        planned: pairs of runs at each planned look; empty for runs without a plan.
        ratio: of the primary's data budget; decides how much information a pair adds.
        made: looks up to the one at which the comparison ended.
        repeats: repeats whose runs the results are about; None for all runs.
        expected: pairs that every contrast has when its runs are finished; None without a plan.
    """

    planned: tuple[int, ...]
    ratio: float
    made: tuple[Look, ...]
    repeats: int | None
    expected: int | None

    @property
    def last(self) -> bool:
        """True if all planned looks are made; a look that ended the comparison early is an interim look."""
        return bool(self.made) and len(self.made) >= len(self.planned)

    def family_level(self, size: int) -> float:
        """The level for p values adjusted over a family of secondary questions, at the look that was made.

        Each member spends its share alpha / size over the looks in the same way, so that the error rate of the
        family is at most alpha for any number of looks. The smaller of two bounds is taken, because the adjustment of
        Holm tests the later members at larger shares.
        """
        if len(self.planned) < 2:
            return ALPHA
        place = len(self.made) - 1
        shared = size * levels(self.planned, self.ratio, alpha=ALPHA / size)[place]
        return min(levels(self.planned, self.ratio)[place], shared)


def make_looks(
    runs: Sequence[Run], rules: Rules, question: Question | None, reference: str, *, leaking: bool = False
) -> Looks:
    """Analyze the primary question at every look whose runs are finished, until one is significant.

    Runs without a plan all count in a single look. Without a question, as without candidates, nothing is tested.
    `leaking` is true if accepted leaks forbid every verdict, so that no look is decisive.
    """
    planned = tuple(folds_of(runs) * repeats for repeats in rules.look_repeats)
    if question is None or rules.primary is None:
        return Looks(planned, 0.0, (), rules.config.repeats if planned else None, planned[-1] if planned else None)
    own = [run for run in runs if run.setting == rules.primary.setting]
    made: list[Look] = []
    whole = _by_arm(own, question, reference)
    ratio = conditions(whole, reference, rules).ratio
    nominal = levels(planned, ratio) if len(planned) > 1 else [ALPHA]
    for place, repeats in enumerate(rules.look_repeats or (None,)):
        by_arm = _by_arm(first_repeats(own, repeats, first_seed(runs)), question, reference)
        where = conditions(by_arm, reference, rules)
        result = contrast(question, by_arm, where)
        if not result.pairs or (planned and result.pairs < planned[place]):
            break
        p = p_of(result[rules.primary.measure], where.own_split)
        decided = not leaking and p is not None and p < nominal[place] and result.pairs >= MINIMUM_PAIRS
        share = information(planned[place], ratio) / information(planned[-1], ratio) if planned else 1.0
        counted = repeats or len({run.config.seed for run in by_arm[question.arm]})
        made.append(Look(counted, result.pairs, share, nominal[place], p, decided))
        if decided:
            break
    repeats = (made[-1].repeats if made else rules.config.repeats) if planned else None
    return Looks(planned, ratio, tuple(made), repeats, folds_of(runs) * repeats if repeats else None)


def first_repeats(runs: Sequence[Run], repeats: int | None, first: int) -> list[Run]:
    """The runs of the first repeats, each of which has the next seed from `first` on; all runs for None."""
    return [run for run in runs if repeats is None or run.config.seed - first < repeats]


def first_seed(runs: Sequence[Run]) -> int:
    """The seed of the first repeat."""
    return min((run.config.seed for run in runs), default=0)


def folds_of(runs: Sequence[Run]) -> int:
    """Pairs per repeat: the number of folds, 1 for the shards' own split."""
    return max((run.config.folds or 1 for run in runs), default=1)


def _by_arm(runs: Sequence[Run], question: Question, reference: str) -> Mapping[str, Sequence[Run]]:
    names = (question.arm, question.against, reference)
    return {name: [run for run in runs if run.arm == name] for name in names}
