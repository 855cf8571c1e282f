"""Arms: what is compared with what, by name. An arm is a training configuration but for what all arms share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from saliency_pipeline.documents import read_toml
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.fusion import FUSIONS
from saliency_pipeline.training.config import SPELLED, TrainConfig
from saliency_pipeline.training.controls import MAPS, OWN

REFERENCE, CANDIDATE, CONTROL = "reference", "candidate", "control"
KINDS = (REFERENCE, CANDIDATE, CONTROL)

DEFAULT = ("baseline", "half", "mismatched", "center-prior")

_HALF = {"arch": "modulated", "init": "half"}
BUILT_IN: dict[str, dict[str, Any]] = {
    "baseline": {"arch": "baseline"},
    "half": _HALF,
    "modulated": _HALF,
    "full": {"arch": "modulated", "init": "full"},
    "learned": {"arch": "learned"},
    **{name: {**_HALF, "fusion": name} for name in FUSIONS},
    **{name: {**_HALF, "maps": name} for name in MAPS if name != OWN},
}
"""Arms that need no description: the options of `salpipe train` in which each differs from the others."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# decided by the comparison, for all arms alike
_SHARED = {"folds", "fold", "seed", "per_class", "device", "precision", "epochs"}


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: what it is called, also as a folder.
        options: fields of `TrainConfig` in which it differs from what all arms share.
        kind: `reference`, that others are held against; `candidate`, whose worth is asked for; or `control`, that
            candidates are held against as well.
        of: for a control, the name of the candidate from which it differs in `maps` alone; empty otherwise.
        reference: for a candidate, the name of the arm it is compared with; empty for the comparison's reference.
    """

    name: str
    options: dict[str, Any]
    kind: str = CANDIDATE
    of: str = ""
    reference: str = ""

    def config(self, shared: TrainConfig) -> TrainConfig:
        """Its training configuration.

        Raises:
            SalpipeError: an option that cannot be, naming the arm.
        """
        try:
            return replace(shared, **self.options)
        except (SalpipeError, TypeError) as error:
            raise SalpipeError(f"arm {self.name}: {error}") from error


def choose_arms(
    names: Sequence[str], file: Path | None = None, *, reference: str | None = None, start: str | None = None
) -> tuple[Arm, ...]:
    """The arms of a comparison.

    Args:
        names: each a built-in arm or `NAME=BUILT-IN`, the same under another name.
        file: a TOML file with one table `[arm.NAME]` an arm, of options of `salpipe train`; `like` names the built-in
            arm it begins with and `kind` its kind.
        reference: the arm that the others are held against; by default `baseline`, or the first.
        start: the run, or file, that arms of `init = full` begin with.

    Raises:
        SalpipeError: an unknown arm or option, a name twice, or fewer than two arms.
    """
    given = [_named(text) for text in (names or (() if file else DEFAULT))] + (_from_file(file) if file else [])
    known = [arm.name for arm in given]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise SalpipeError(f"arm {twice[0]} is named twice; call one of them otherwise, as in --arm again={twice[0]}")
    if len(given) < 2:
        raise SalpipeError("a comparison needs two arms or more; add --arm baseline")
    first = reference or ("baseline" if "baseline" in known else known[0])
    if first not in known:
        raise SalpipeError(f"--reference {first}: no such arm; there are {', '.join(known)}")
    if start is not None:
        begun = [arm for arm in given if arm.options.get("init") == "full"]
        if not begun:
            raise SalpipeError(f"--from {start}: no arm begins with it; add --arm full")
        given = [replace(arm, options={**arm.options, "start": start}) if arm in begun else arm for arm in given]
    return tuple(replace(arm, kind=REFERENCE) if arm.name == first else arm for arm in given)


@dataclass(frozen=True)
class Question:
    """A contrast of two arms.

    Attributes:
        arm: name of the arm in question.
        against: name of the arm it is compared with.
        role: `reference` for a candidate and its reference, `control` for a candidate and its own control,
            `descriptive` for a control and the reference of its candidate, which is estimated without a verdict.
    """

    arm: str
    against: str
    role: str


def contrasts(arms: Sequence[Arm]) -> list[Question]:
    """The contrasts of a comparison; no candidate is compared with the control of another."""
    first = next(arm.name for arm in arms if arm.kind == REFERENCE)
    references = {arm.name: arm.reference or first for arm in arms if arm.kind == CANDIDATE}
    controls = [arm for arm in arms if arm.kind == CONTROL]
    return [
        *(Question(name, reference, REFERENCE) for name, reference in references.items()),
        *(Question(arm.of, arm.name, CONTROL) for arm in controls if arm.of in references),
        *(Question(arm.name, references.get(arm.of, first), "descriptive") for arm in controls),
    ]


def reads_maps(arm: Arm) -> bool:
    """Whether the network of an arm reads maps."""
    return bool(arm.options.get("arch", "modulated") == "modulated")


def _named(text: str) -> Arm:
    name, given, like = text.partition("=")
    like = like if given else name
    if like not in BUILT_IN:
        raise SalpipeError(f"--arm {text}: no arm '{like}'; there are {', '.join(BUILT_IN)}")
    return _arm(name, BUILT_IN[like])


def _arm(name: str, options: Mapping[str, Any], kind: str | None = None) -> Arm:
    if not _NAME.fullmatch(name):
        raise SalpipeError(f"arm {name!r}: use letters, digits, '.', '-' and '_'")
    if kind is None:
        kind = CANDIDATE if options.get("maps", OWN) == OWN else CONTROL
    return Arm(name, dict(options), kind)


def _from_file(path: Path) -> list[Arm]:
    try:
        tables = read_toml(path)["arm"]
        items = list(tables.items())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SalpipeError(f"{path}: holds no tables [arm.NAME] ({error}); see 'salpipe compare --help'") from error
    spelled = {SPELLED.get(f.name, f.name).replace("_", "-"): f.name for f in fields(TrainConfig)}
    arms = []
    for name, table in items:
        if not isinstance(table, dict):
            raise SalpipeError(f"{path}: [arm.{name}] is no table")
        table = dict(table)
        like, kind = table.pop("like", None), table.pop("kind", None)
        if like is not None and (not isinstance(like, str) or like not in BUILT_IN):
            raise SalpipeError(f"{path}: arm {name}: no arm '{like}' to be like; there are {', '.join(BUILT_IN)}")
        if kind not in (None, CANDIDATE, CONTROL):
            raise SalpipeError(f"{path}: arm {name}: kind {kind!r}; use {CANDIDATE} or {CONTROL}")
        options = dict(BUILT_IN[like]) if like else {}
        for option, value in table.items():
            field = spelled.get(option)
            if field is None or field in _SHARED:
                why = "is the same for all arms" if field else "is no option of 'salpipe train'"
                raise SalpipeError(f"{path}: arm {name}: {option} {why}; leave it out")
            options[field] = tuple(value) if isinstance(value, list) else value
        arms.append(_arm(name, options, kind))
    return arms
