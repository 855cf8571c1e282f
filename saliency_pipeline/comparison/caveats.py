"""Caveats of a comparison, one sentence each, for `warnings` of results.json."""

from __future__ import annotations

from collections.abc import Sequence

from saliency_pipeline.comparison.arms import CANDIDATE
from saliency_pipeline.comparison.looks import Looks, first_seed
from saliency_pipeline.comparison.map_results import ClassMaps
from saliency_pipeline.comparison.results import Duplicates, Results
from saliency_pipeline.comparison.rules import AREA, SPEED
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.statistics.power import MINIMUM_PAIRS

NOTICEABLE = 0.01
"""Relative distance of first features from plain transfer's up to which a start counts as neutral."""
EMPTY_MAPS = 0.1
"""Share of all-zero or constant maps in a class from which it is reported."""


def caveats(results: Results, runs: Sequence[Run], looks: Looks) -> list[str]:
    """The caveats of results that have no warnings yet, from all finished runs and their looks."""
    return [
        *_pairs(results, runs),
        *_looks(runs, looks),
        *_unequal(results, runs),
        *_not_validated(results),
        *_duplicates(results.duplicates),
        *_maps(results.maps or ()),
        *_starts(results),
    ]


def _pairs(results: Results, runs: Sequence[Run]) -> list[str]:
    counts = [contrast.pairs for part in results.settings for contrast in part.contrasts]
    few = [pairs for pairs in counts if 0 < pairs < MINIMUM_PAIRS]
    sentences = []
    if few and max(few) > 1:
        some = "" if len(few) == len(counts) else f" in {len(few)} of {len(counts)} contrasts"
        many = f"{min(few)}" if min(few) == max(few) else f"{min(few)} to {max(few)}"
        sentences.append(f"{many} pairs of runs{some}: too few for a verdict, which takes {MINIMUM_PAIRS}; add folds")
    if counts and max(counts) == 1:
        sentences.append(
            "a single pair of runs: the results are about these two networks on images of this kind, and not about "
            "training again"
        )
    if any(part.own_split for part in results.settings) and runs:
        sentences.append(
            "all runs share one split: verdicts are about this split, and area and speed, whose intervals cover other "
            "seeds but not other images, have no verdict; use --folds for more"
        )
    return sentences


def _looks(runs: Sequence[Run], looks: Looks) -> list[str]:
    if not looks.made:
        return []
    number, sentences = len(looks.made), []
    if looks.made[-1].decided and number < len(looks.planned):
        sentences.append(
            f"the comparison ended at look {number} of {len(looks.planned)}: a difference that ends a comparison early "
            "tends to be overestimated"
        )
    later = sum(run.config.seed - first_seed(runs) >= looks.repeats for run in runs) if looks.repeats else 0
    if later:
        reason = "decided" if looks.made[-1].decided else "last made"
        sentences.append(f"{later} runs of later repeats are not used: look {number} was {reason} without them")
    return sentences


def _unequal(results: Results, runs: Sequence[Run]) -> list[str]:
    sentences = []
    for part in results.settings:
        counts = {arm: len(summary.runs) for arm, summary in part.arms.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{arm} {count}" for arm, count in counts.items())
            sentences.append(f"{part.name}: not every arm has every run ({listed}); only complete pairs are compared")
    lengths = {len(run.curves["validation_top1"]) for run in runs if run.config.patience is None}
    if len(lengths) > 1:
        sentences.append(f"runs of {', '.join(map(str, sorted(lengths)))} epochs are compared: not the same budget")
    precisions = {run.config.precision for run in runs}
    if len(precisions) > 1:
        listed = " and ".join(sorted(precisions))
        sentences.append(f"runs in {listed} are compared: rounding is part of the differences")
    return sentences


def _not_validated(results: Results) -> list[str]:
    """One sentence on the measures that need epochs which were not validated."""
    contrasts = [contrast for part in results.settings for contrast in part.contrasts if contrast.pairs]
    missing = [name for name in (AREA, SPEED) if any(not contrast[name].differences for contrast in contrasts)]
    if not missing:
        return []
    early = max(part.early_epochs for part in results.settings)
    titles = {AREA: f"the area under the first {early} epochs", SPEED: "the time to 95 % of a run's own final accuracy"}
    listed = " and ".join(titles[name] for name in missing)
    return [
        f"some epochs were not validated: {listed} and the epochs to a threshold are not available; use --validate all"
    ]


def _duplicates(duplicates: Duplicates | None) -> list[str]:
    if duplicates is None or duplicates.searched:
        return []
    return [
        "near duplicates were not searched for: copies of a training image may be among the validation images, and "
        "accuracies may be too high"
    ]


def _maps(maps: Sequence[ClassMaps]) -> list[str]:
    affected = [row for row in maps if max(row.zero or 0.0, row.constant or 0.0) >= EMPTY_MAPS]
    if not affected:
        return []
    worst = max(affected, key=lambda row: max(row.zero or 0.0, row.constant or 0.0))
    return [
        f"{len(affected)} of {len(maps)} classes have many maps without content; most in {worst.class_}: "
        f"{worst.zero:.0%} of its maps are all zero, {worst.constant:.0%} constant"
    ]


def _starts(results: Results) -> list[str]:
    sentences = []
    for arm in results.arms:
        start = results.starts.get(arm.name)
        if arm.kind != CANDIDATE or not start:
            continue
        distance = max(start.features.eval, start.features.train)
        if distance > NOTICEABLE:
            sentences.append(
                f"{arm.name} starts with features {distance:.2g} away from the baseline's (relative norm): a "
                "damaged or merely different start is part of what is compared; use a fusion with a neutral start"
            )
    return sentences
