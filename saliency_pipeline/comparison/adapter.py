"""Calls the analysis by the rules of a plan, whichever of its two signatures is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from saliency_pipeline.comparison import analysis
from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.rules import Rules
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.statistics.contrast import ALPHA
from saliency_pipeline.statistics.power import MINIMUM_PAIRS


def analyse_by_rules(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    settings: Sequence[str],
    classes: Sequence[str],
    *,
    rules: Rules,
    about: Mapping[str, Any],
    warnings: Sequence[str],
    maps: Sequence[Mapping[str, Any]] | None,
    starts: Mapping[str, Any],
    tuning: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """As `analysis.analyse`."""
    more: dict[str, Any] = {"maps": maps, "starts": starts, "tuning": tuning}
    analyse: Any = analysis.analyse
    if "rules" in signature(analyse).parameters:
        results: dict[str, Any] = analyse(
            runs, arms, settings, classes, rules=rules, about=about, warnings=warnings, **more
        )
        return results
    results = analyse(runs, arms, settings, classes, about=about, warnings=warnings)
    seeds = sorted({run.config.seed for run in runs})
    made = []
    for repeats in rules.look_repeats:
        if repeats > len(seeds):
            break
        own = [run for run in runs if run.config.seed in seeds[:repeats]]
        at_look = results if repeats == len(seeds) else analyse(own, arms, settings, classes, about=about)
        made.append(_look(at_look, rules, repeats))
    return results | more | {"looks": {"planned": rules.looks, "made": made}}


def _look(results: Mapping[str, Any], rules: Rules, repeats: int) -> dict[str, Any]:
    """A look at a bound that holds for any number of looks."""
    primary, level = rules.primary, ALPHA / rules.looks
    found = [
        contrast
        for setting in results["settings"]
        for contrast in setting["contrasts"]
        if primary and (setting["name"], contrast["arm"]) == (primary.setting, primary.arm)
    ]
    statistics = found[0][primary.measure]["statistics"] if found and primary and primary.measure in found[0] else None
    p, pairs = (statistics["p"], statistics["pairs"]) if statistics else (None, 0)
    decided = p is not None and p < level and pairs >= MINIMUM_PAIRS
    return {"repeats": repeats, "pairs": pairs, "level": level, "p": p, "decided": decided}
