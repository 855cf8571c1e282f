"""Attribution of a better result: to the maps, to the use itself, or to another difference of the arms.

A candidate differs from its reference by its use of maps and by the maps. Only its own controls, which differ from it
in the maps alone, distinguish the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from saliency_pipeline.comparison.arms import CONTROL
from saliency_pipeline.comparison.results import ComparedArm, ContrastResult, PrimaryQuestion, Results, SettingResult
from saliency_pipeline.comparison.rules import AREA, FINAL, SPEED
from saliency_pipeline.comparison.use_arms import MAP_OPTIONS
from saliency_pipeline.comparison.verdicts import FASTER, WITHHELD
from saliency_pipeline.statistics.contrast import BETTER
from saliency_pipeline.training.config import MISMATCHED, TrainConfig, option


def attribution(results: Results, part: SettingResult, contrast: ContrastResult, measure: str) -> list[str]:
    """Attribution by the controls of the candidate, at most one clause; empty unless it is better than its reference.

    The position of the maps helped only if a candidate that reads maps is better than all its controls, with maps of
    other images (`mismatched`) among them.
    """
    gain = FASTER if measure == SPEED else BETTER
    arm = contrast.arm
    if contrast[measure].verdict != gain:
        return []
    arms = {entry.name: entry for entry in results.arms}
    if not arms[arm].reads_maps:
        return [f"{arm} reads no maps, so that this shows nothing about maps"]
    controls = [name for name, entry in arms.items() if entry.kind == CONTROL and entry.of == arm]
    if not controls:
        return [f"without a control it may be {_rest(arms[arm])} rather than the maps"]
    words = {c.against: c[measure].verdict for c in part.contrasts if c.arm == arm}
    waiting = [name for name in controls if words.get(name) in (WITHHELD, None)]
    unbeaten = [name for name in controls if words.get(name) != gain and name not in waiting]
    better = {FINAL: "better", AREA: "higher over the first epochs", SPEED: "faster"}[measure]
    if unbeaten:
        return [
            f"not shown to be {better} than its {_controls(unbeaten)}, so that it may be {_rest(arms[arm])} rather "
            "than where the maps point"
        ]
    if waiting:
        return [f"the verdict against its {_controls(waiting)} is withheld, so that it may be {_rest(arms[arm])}"]
    if not any(arms[name].options.get("maps") == MISMATCHED for name in controls):
        return [
            f"also {better} than its {_controls(controls)}, but without a control that reads maps of other images "
            "it is open whether it matters where the maps point"
        ]
    return [f"also {better} than its {_controls(controls)}: where the maps point helped"]


def other_differences(results: Results, primary: PrimaryQuestion) -> list[str]:
    """Options besides the use and its maps in which the primary's two arms differ; at most one clause."""
    options = {entry.name: entry.options for entry in results.arms}
    first, second = options[primary.against], options[primary.arm]
    defaults = TrainConfig()
    differing = [
        name
        for name in dict.fromkeys((*first, *second))
        if name not in ("arch", *MAP_OPTIONS)
        and first.get(name, getattr(defaults, name, None)) != second.get(name, getattr(defaults, name, None))
    ]
    if not differing:
        return []
    return [f"{primary.arm} and {primary.against} also differ in {_listed([option(name) for name in differing])}"]


def _rest(arm: ComparedArm) -> str:
    """Difference of a candidate from its reference besides the maps."""
    use = arm.options.get("use")
    if use is not None:
        return f"{str(use).partition(':')[0]} itself"
    if arm.options.get("arch") == "pooled":
        return "the attention pooling itself"
    return "the fourth channel itself" if arm.options.get("fusion") == "input" else "the extra branch"


def _controls(names: Sequence[str]) -> str:
    return f"control{'' if len(names) == 1 else 's'} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
