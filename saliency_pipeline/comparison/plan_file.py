"""`plan.json`: the stored plan of a comparison, and its permitted changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.plan import RUNS, Plan
from saliency_pipeline.comparison.rules import Primary
from saliency_pipeline.documents import DocumentError, read_json
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.serialization import MismatchError, from_json
from saliency_pipeline.text import plural
from saliency_pipeline.training.config import TrainConfig, option
from saliency_pipeline.training.runlog import SUMMARY

PLAN = "plan.json"
FORMAT_VERSION = 2
ANALYZED = "analyzed"
"""Numbers of repeats that were analyzed, in the order of the looks."""

_NOT_SHARED = (
    *("arch", "init", "start", "fusion", "use", "maps", "from_baseline"),
    *("folds", "fold", "per_class", "seed", "inner_split"),
)
_FIXED = ("hash", "folds", "pretraining", "threads", "seed", "primary", "rope", "threshold", "looks", "lrs")


def described(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    config, shared = plan.config, asdict(plan.shared)
    values = {
        "format_version": FORMAT_VERSION,
        "shards": plan.shards,
        "hash": plan.hash,
        "arms": [asdict(arm) for arm in plan.arms],
        "shared": {name: value for name, value in shared.items() if name not in _NOT_SHARED},
        "folds": config.folds,
        "repeats": config.repeats,
        "per_class": config.per_class,
        "pretraining": config.pretrain and {"shards": config.pretrain, "sizes": config.pretrain_size},
        "threads": plan.threads,
        "test": plan.test,
        "primary": plan.primary and asdict(plan.primary),
        "rope": config.margin,
        "threshold": config.threshold,
        "looks": config.looks,
        "lrs": config.lrs,
        "seed": plan.shared.seed,
    }
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def stored_plan(folder: Path) -> dict[str, Any] | None:
    """The plan that a folder holds, None where it holds none.

    Raises:
        SalpipeError: it is damaged, or of an earlier version.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        stored = read_json(path)
        if not isinstance(stored, dict):
            raise DocumentError("not an object")
    except (OSError, ValueError) as error:
        raise SalpipeError(f"{path}: damaged ({error}); choose another output folder") from error
    version = stored.get("format_version")
    if version is None and "hash" not in stored:
        raise SalpipeError(f"{path}: damaged; choose another output folder")
    if version != FORMAT_VERSION:
        which = "an earlier" if version is None else "another"
        raise SalpipeError(
            f"{path}: holds a comparison of {which} version, with other controls and rules than this one; choose "
            "another output folder"
        )
    return stored


def store(plan: Plan, folder: Path) -> None:
    """Store the plan. Arms and budgets may be added to a stored one, repeats before the first run is finished; nothing
    else may change.

    Raises:
        PlanMismatchError: the folder holds another comparison, naming what differs; or its repeats were analyzed.
    """
    new, old = described(plan), stored_plan(folder)
    if old is None and (folder / RUNS).exists():
        raise SalpipeError(f"{folder}: holds runs without their {PLAN}; choose another output folder")
    if old is not None:
        try:
            differing, analyzed = _differences(old, new), [int(repeats) for repeats in old.get(ANALYZED, ())]
            before = int(old["repeats"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise SalpipeError(f"{folder / PLAN}: damaged; choose another output folder") from error
        if differing:
            raise PlanMismatchError(
                f"{folder} holds another comparison ({'; '.join(differing)}); choose another output folder"
            )
        # the accuracy of every finished run is printed, so that looking begins with the first
        if plan.config.repeats != before and (analyzed or any((folder / RUNS).glob(f"*/*/*/{SUMMARY}"))):
            many = "more" if plan.config.repeats > before else "fewer"
            raise PlanMismatchError(
                f"--repeats {plan.config.repeats}: {folder} has finished runs of "
                f"{plural(before, 'planned repeat')}; {many} repeats after "
                "looking would raise the error rate above 5 %; choose another output folder, or plan looks "
                "beforehand with --looks"
            )
        if analyzed:
            new[ANALYZED] = analyzed
    _write(folder, new)


def record_look(folder: Path, repeats: int) -> None:
    """Store that a number of repeats was analyzed, which also fixes the planned number."""
    plan = stored_plan(folder) or {}
    analyzed = plan.get(ANALYZED, [])
    if repeats not in analyzed:
        _write(folder, plan | {ANALYZED: [*analyzed, repeats]})


@dataclass(frozen=True)
class SharedBefore:
    """The options of every run that a stored plan has chosen."""

    precision: str


@dataclass(frozen=True)
class Before:
    """The choices of a stored plan that the same command leaves open."""

    shared: SharedBefore
    threads: int
    primary: Primary | None = None


def chosen_before(folder: Path) -> Before | None:
    """The choices of the stored plan, None if there is none.

    Raises:
        SalpipeError: the stored plan is damaged, or of an earlier version.
    """
    stored = stored_plan(folder)
    try:
        return None if stored is None else from_json(Before, stored)
    except MismatchError as error:
        raise SalpipeError(f"{folder / PLAN}: damaged; choose another output folder") from error


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Differences from a stored plan, except for new arms and budgets."""
    differing = [
        f"{name} {_shown(old.get(name))} -> {_shown(new[name])}" for name in _FIXED if old.get(name) != new[name]
    ]
    # options that are new since were what their defaults are
    before = {**json.loads(json.dumps(asdict(TrainConfig()))), **old.get("shared", {})}
    differing += [
        f"{option(name)} {before.get(name)} -> {value}"
        for name, value in new["shared"].items()
        if before.get(name) != value
    ]
    stored = {arm["name"]: arm for arm in old.get("arms", ())}
    # leaving out arms after looking makes the family smaller and the level per test larger
    names = {arm["name"] for arm in new["arms"]}
    differing += [f"arm {name} is left out" for name in stored if name not in names]
    differing += [f"per-class {text} is left out" for text in old["per_class"] if text not in new["per_class"]]
    for arm in new["arms"]:
        same = stored.get(arm["name"], arm)
        if same["options"] != arm["options"]:
            differing.append(f"arm {arm['name']}")
        else:
            differing += [
                f"arm {arm['name']}: {name} {same[name] or 'none'} -> {arm[name] or 'none'}"
                for name in ("kind", "of", "reference")
                if same[name] != arm[name]
            ]
    return differing


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ":".join(str(part) for part in value.values())
    if isinstance(value, list):
        return ",".join(str(part) for part in value) or "none"
    return "none" if value is None else str(value)


def _write(folder: Path, plan: dict[str, Any]) -> None:
    write_atomically(folder / PLAN, json.dumps(plan, indent=2) + "\n")
