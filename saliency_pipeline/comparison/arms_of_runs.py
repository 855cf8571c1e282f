"""Arms of finished runs: groups of runs that differ only in seed and fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.arms import CANDIDATE, CONTROL, REFERENCE, Arm, first_reference
from saliency_pipeline.comparison.pairing import COMPUTED, SPLIT
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.comparison.use_arms import MAP_OPTIONS, is_plain
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.methods import parsed
from saliency_pipeline.training.config import NO_CONTROLS, OWN, option

Options = Mapping[str, Any]

# fields that make no arm: they vary within it, must be the same in all runs, or accept a leak
_NO_ARM = {"seed", "fold", *SPLIT, *COMPUTED, "inner_split", "allow_leaks", "from_baseline"}
# fields that the first part of an arm's name stands for, or that follow from those
_NAMED = {"arch", "use", "maps", "init", "method", "start", "fusion"}
# fields by which arms differ in their network and its maps
_NETWORK = {"arch", *MAP_OPTIONS}
_START = {"start", "weights"}
_BASELINE, _FULL = "baseline", "full"


def grouped(runs: Sequence[Run], reference: str | None) -> tuple[list[Run], tuple[Arm, ...]]:
    """Runs with the name of the arm that each belongs to, and the arms.

    Runs that differ in seed and fold alone are one arm. Its name consists of the kind of its network and of all other
    options in which the runs differ. Runs that differ in no option and share seeds are one arm each, with the name of
    their folder. A run of control maps is the control of the candidate whose options are the same in all but `maps`;
    without such a candidate it belongs to none. A candidate that starts from a network trained before (`init = full`)
    is compared with the baseline that does so too, where there is one.
    The reference is by default the first baseline, or the first arm.

    Raises:
        SalpipeError: one arm alone, two runs of one arm that share seed and fold, or no such reference.
    """
    if len(runs) < 2:
        raise SalpipeError("give two runs or more to compare")
    options = [{name: value for name, value in vars(run.config).items() if name not in _NO_ARM} for run in runs]
    differing = [name for name in options[0] if len({repr(own[name]) for own in options}) > 1]
    names = _names(options, differing)
    if len(set(names)) < 2:
        if len({run.pair for run in runs}) == len(runs):
            raise SalpipeError("the runs differ in seed or fold alone: one arm; give runs of two arms or more")
        names = [run.folder.resolve().name for run in runs]
    named = [replace(run, arm=name) for run, name in zip(runs, names, strict=True)]
    by_name = dict(zip(reversed(names), reversed(options), strict=True))
    order = list(dict.fromkeys(names))
    if len(order) < 2:
        raise SalpipeError("two runs of one arm have the same seed, fold and name; give one of them")
    places = [(run.arm, run.pair) for run in named]
    for arm, (seed, fold) in places:
        if places.count((arm, (seed, fold))) > 1:
            where = f"seed {seed}" + (f" and fold {fold}" if fold else "")
            raise SalpipeError(f"arm {arm} has two runs of {where}; give one of them")
    baselines = (name for name in order if is_plain(by_name[name]))
    first = reference or next(baselines, order[0])
    if first not in by_name:
        raise SalpipeError(f"--reference {first}: no such arm; there are {', '.join(order)}")
    return named, tuple(_arms(order, by_name, differing, first))


def other_differences(runs: Sequence[Run], arms: Sequence[Arm]) -> list[str]:
    """A warning for every candidate that differs from its reference in more than its network and maps."""
    first = first_reference(arms)
    configs = {run.arm: vars(run.config) for run in reversed(runs)}
    warnings = []
    for arm in arms:
        reference = arm.reference or first
        own, other = configs[arm.name], configs[reference]
        # a network that was trained before has no weights of its backbone's own, and a start of its own kind
        ignored = _NO_ARM | _NETWORK | (_START if own["init"] == other["init"] == _FULL else set())
        names = [name for name in own if name not in ignored and own[name] != other[name]]
        if arm.kind == CANDIDATE and names:
            options = ", ".join(
                f"{option(name)} {_value(own[name])} instead of {_value(other[name])}" for name in names
            )
            warnings.append(
                f"{arm.name} differs from {reference} in {options} as well: a difference between them is not one of "
                "the networks alone"
            )
    return warnings


def _arms(order: Sequence[str], by_name: Mapping[str, Options], differing: Sequence[str], first: str) -> list[Arm]:
    """The arms, the comparison's reference before any other."""
    references = {name: _reference(name, by_name) for name in order if name != first}
    kinds = {name: CANDIDATE if by_name[name]["maps"] in NO_CONTROLS else CONTROL for name in order}
    kinds |= dict.fromkeys(filter(None, references.values()), REFERENCE) | {first: REFERENCE}
    arms = []
    for name in order:
        own, kind = by_name[name], kinds[name]
        # always the options that decide whether maps are read, and which
        options = {field: own[field] for field in own if field in differing or field in ("arch", "use", "maps")}
        same = [other for other in order if by_name[other] == {**own, "maps": OWN} and kinds[other] == CANDIDATE]
        of = same[0] if kind == CONTROL and same else ""
        against = references[name] if kind == CANDIDATE else ""
        arms.append(Arm(name, options, kind, of, "" if against == first else against))
    if sum(arm.kind == REFERENCE for arm in arms) > 1:
        arms.sort(key=lambda arm: arm.name != first)
    return arms


def _reference(name: str, by_name: Mapping[str, Options]) -> str:
    """The arm of plain transfer that was trained before like an arm of `init = full`; empty for any other arm."""
    own, ignored = by_name[name], _NETWORK | _START
    if own["init"] != _FULL or is_plain(own):
        return ""
    rest = {field: value for field, value in own.items() if field not in ignored}
    for other, theirs in by_name.items():
        alike = {field: value for field, value in theirs.items() if field not in ignored} == rest
        if is_plain(theirs) and alike:
            return other
    return ""


def _names(options: Sequence[Options], differing: Sequence[str]) -> list[str]:
    """The name of each run's arm: `baseline`, `half`, `half-mismatched`, with the other options that differ."""
    bases = [_base(own) for own in options]
    methods = {own["method"] for own in options if own["method"] is not None}
    names = []
    for base, own in zip(bases, options, strict=True):
        alike = [one for other, one in zip(bases, options, strict=True) if other == base]
        extra = [field for field in differing if field not in _NAMED]
        if "fusion" in differing and own["arch"] == "modulated":
            extra.append("fusion")
        extra += [field for field in ("init", "use", "method", "start") if len({one[field] for one in alike}) > 1]
        name = ",".join([base, *(f"{field}={_short(field, own[field], methods)}" for field in extra)])
        maps = own["maps"]
        names.append(name if maps == OWN else f"{maps}-{name}" if maps in NO_CONTROLS else f"{name}-{maps}")
    return names


def _base(own: Options) -> str:
    if own["use"] is not None:
        return str(own["use"]).partition(":")[0]
    if own["arch"] == _BASELINE:
        return f"{_BASELINE}-{_FULL}" if own["init"] == _FULL else _BASELINE
    return {"modulated": str(own["init"]), "pooled": "pool"}.get(own["arch"], str(own["arch"]))


def _short(field: str, value: Any, methods: set[str]) -> str:
    """The value of an option in a name; of a method without its parameters, unless methods differ in these alone."""
    if field != "method" or "=" not in str(value):
        return _value(value)
    name, _ = parsed(value)
    return name if sum(parsed(method)[0] == name for method in methods) == 1 else value


def _value(value: Any) -> str:
    """The value of an option in a name or message; of a path its last part."""
    if isinstance(value, tuple):
        return "+".join(value) or "none"
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)
