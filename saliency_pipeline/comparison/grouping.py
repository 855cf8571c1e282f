"""Arms read off finished runs: which runs are the same but for seed and fold, and what the others differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saliency_pipeline.comparison.arms import CANDIDATE, CONTROL, REFERENCE, Arm
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.controls import OWN

# fields in which the runs of one arm may differ from one another
_OF_THE_PAIR = {"seed", "fold", "folds", "device", "precision"}
# fields that an arm's name tells already, or that follow from those
_NAMED = {"arch", "maps", "init", "method", "start", "fusion"}


def grouped(runs: Sequence[Run], reference: str | None) -> tuple[list[Run], tuple[Arm, ...]]:
    """The runs, each told which arm it belongs to, and the arms.

    Runs that differ in nothing but seed and fold are one arm, named after its kind and what else differs; where all
    are, and share seeds, each is an arm called like its folder.

    Args:
        runs: two or more.
        reference: the arm that others are held against; the first baseline, or the first arm, by default.

    Raises:
        SalpipeError: one arm alone, two runs of one arm that share seed and fold, or no such reference.
    """
    if len(runs) < 2:
        raise SalpipeError("give two runs or more to compare")
    told = [{name: value for name, value in vars(run.config).items() if name not in _OF_THE_PAIR} for run in runs]
    differing = [name for name in told[0] if len({repr(options[name]) for options in told}) > 1]
    names = [_name(options, differing) for options in told]
    if len(set(names)) < 2:
        if len({run.pair for run in runs}) == len(runs):
            raise SalpipeError("the runs differ in seed or fold alone: one arm; give runs of two arms or more")
        names = [run.folder.resolve().name for run in runs]
    found = [replace(run, arm=name) for run, name in zip(runs, names, strict=True)]
    known = list(dict.fromkeys(names))
    if len(known) < 2:
        raise SalpipeError("two runs of one arm have the same seed, fold and name; give one of them")
    places = [(run.arm, run.pair) for run in found]
    for arm, (seed, fold) in places:
        if places.count((arm, (seed, fold))) > 1:
            where = f"seed {seed}" + (f" and fold {fold}" if fold else "")
            raise SalpipeError(f"arm {arm} has two runs of {where}; give one of them")
    baselines = (name for name, options in zip(names, told, strict=True) if options["arch"] == "baseline")
    first = reference or next(baselines, known[0])
    if first not in known:
        raise SalpipeError(f"--reference {first}: no such arm; there are {', '.join(known)}")
    return found, tuple(_arm(name, told[names.index(name)], differing, name == first) for name in known)


def _arm(name: str, options: Mapping[str, Any], differing: Sequence[str], is_reference: bool) -> Arm:
    kind = REFERENCE if is_reference else CANDIDATE if options["maps"] == OWN else CONTROL
    return Arm(name, {field: options[field] for field in differing}, kind)


def _name(options: Mapping[str, Any], differing: Sequence[str]) -> str:
    """`baseline`, `half` or a control where that says it all, else what differs as well."""
    if options["arch"] != "modulated":
        base = options["arch"]
    elif options["maps"] != OWN:
        base = options["maps"]
    else:
        base = options["init"]
    rest = [name for name in differing if name not in _NAMED]
    if "fusion" in differing and options["arch"] == "modulated":
        rest.append("fusion")
    return ",".join([str(base), *(f"{name}={options[name]}" for name in rest)])
