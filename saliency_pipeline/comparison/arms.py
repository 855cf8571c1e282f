"""Arms: the training configurations that are compared, by name, and the contrasts between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison import use_arms
from saliency_pipeline.comparison.arm_entries import (
    CONTROLS,
    Entry,
    differing_options,
    read_entries,
    text_entries,
    text_entry,
)
from saliency_pipeline.comparison.use_arms import MAP_SOURCES, is_plain, maps_of, same_use
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.training.config import CENTER_PRIOR, ORACLE, OWN, SELF, STORED, UNIFORM, TrainConfig

REFERENCE, CANDIDATE, CONTROL = "reference", "candidate", "control"

DEFAULT = ("baseline", "half")
DEFAULT_CONTROLS = ("mismatched", "center-prior")
"""Of the first candidate that reads maps, and of every use of `--uses`."""


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: its name, also of its folder.
        options: fields of `TrainConfig` in which it differs from the shared options.
        kind: `reference`, that candidates are compared with; `candidate`; or `control`.
        of: for a control, the name of the candidate from which it differs in `maps` alone; empty otherwise.
        reference: for a candidate, the name of the arm that it is compared with; empty for the comparison's reference,
            which is the first arm of that kind.
    """

    name: str
    options: dict[str, Any]
    kind: str = CANDIDATE
    of: str = ""
    reference: str = ""

    def config(self, shared: TrainConfig) -> TrainConfig:
        """Its training configuration.

        Raises:
            SalpipeError: an option that is not possible, naming the arm.
        """
        try:
            return replace(shared, **self.options)
        except (SalpipeError, TypeError) as error:
            raise SalpipeError(f"arm {self.name}: {error}") from error


@dataclass(frozen=True)
class Question:
    """A contrast to be made.

    Attributes:
        arm: name of the arm whose scores are the minuend.
        against: name of the arm whose scores are subtracted.
        role: `reference` for a candidate and its reference, `control` for a candidate and its own control,
            `descriptive` for a control and the reference of its candidate, and for pretrained arms and those with fewer
            or no source images; these are estimated and never get a verdict.
    """

    arm: str
    against: str
    role: str


DESCRIPTIVE = "descriptive"
ROLES = (REFERENCE, CONTROL, DESCRIPTIVE)
"""Roles of contrasts in the order of the report."""


def first_reference(arms: Sequence[Arm]) -> str:
    """Name of the comparison's reference: the first arm of that kind."""
    return next(arm.name for arm in arms if arm.kind == REFERENCE)


def reads_maps(arm: Arm) -> bool:
    """True if it is trained with saliency maps; a baseline and a learned branch are not."""
    return use_arms.reads_maps(arm.options)


def choose_arms(
    names: Sequence[str],
    file: Path | None = None,
    *,
    reference: str | None = None,
    start: str | None = None,
    controls: Sequence[str] | None = None,
    uses: Sequence[str] = (),
    oracle: bool = False,
    self_maps: bool = False,
) -> tuple[Arm, ...]:
    """The arms of a comparison.

    Args:
        names: each a built-in arm, a control as `<candidate>-<control>`, a control of the first candidate by the
            control's name alone, or `NAME=ARM`, the same under another name.
        file: a TOML file with one table `[arm.NAME]` per arm, of options of `salpipe train`; `like` names the arm that
            it starts from, one of `names` and `uses` or a built-in one; `kind` its kind, and `of` the candidate that a
            control belongs to.
        reference: the arm that candidates are compared with; by default `baseline`, or the first.
        start: the run, or file, that arms of `init = full` start from.
        controls: controls that are made for every candidate that reads maps. None: where no arm is a control,
            `DEFAULT_CONTROLS` for the first such candidate, and with `uses` for all of them.
        uses: uses of maps, each an arm besides those named, compared with a baseline that is added where there is none.
        oracle: adds for every use that reads maps an arm `oracle-USE`, whose maps are the true boxes or masks.
        self_maps: adds likewise an arm `self-USE`, whose maps are those of the pair's own baseline.

    Returns:
        The reference first, then the other arms in their order, then the controls that were added.

    Raises:
        SalpipeError: an unknown arm or option, a name twice, fewer than two arms, no candidate, or a control that
            differs from its candidate in more than its maps.
    """
    entries = text_entries((*(names or (() if file or uses else DEFAULT)), *uses))
    requested = {entry.name: entry.options for entry in entries if not entry.is_control}
    entries += read_entries(file, requested) if file else []
    if uses and reference is None and not any(entry.name == DEFAULT[0] for entry in entries):
        entries.insert(0, text_entry(DEFAULT[0]))
    _refuse_repeated([entry.name for entry in entries if entry.name])
    if len(entries) < 2:
        raise SalpipeError("a comparison needs two arms or more; add --arm baseline")
    entries = _started(entries, start)
    arms = _with_reference([_arm(entry) for entry in entries if not entry.is_control], reference)
    made = tuple(_control(entry, arms) for entry in entries if entry.is_control)
    if not any(arm.kind == CANDIDATE for arm in arms):
        raise SalpipeError("a comparison needs a candidate besides its reference; add --arm half")
    for maps, wanted in ((ORACLE, oracle), (SELF, self_maps)):
        arms += _with_maps(arms, maps) if wanted else ()
    arms = (*arms, *made, *_added_controls(arms, made, controls, every=bool(uses)))
    _refuse_repeated([arm.name for arm in arms])
    return arms


def _added_controls(
    arms: Sequence[Arm], made: Sequence[Arm], controls: Sequence[str] | None, *, every: bool
) -> tuple[Arm, ...]:
    """Controls besides those `made`: the requested ones of every candidate that reads its own maps, or the default."""
    wanted = DEFAULT_CONTROLS if controls is None and (every or not made) else tuple(controls or ())
    for control in wanted:
        if control not in CONTROLS:
            raise OptionError(f"--control {control}: unknown; choose from {', '.join(CONTROLS)}, or none")
    reading = _reading(arms)
    if controls and not reading:
        raise SalpipeError(f"--control {controls[0]}: no candidate reads maps; add --arm half")
    have = {(arm.of, arm.options["maps"]) for arm in made}
    return tuple(
        Arm(f"{candidate.name}-{control}", {**candidate.options, "maps": control}, CONTROL, candidate.name)
        for candidate in (reading if every or controls is not None else reading[:1])
        for control in dict.fromkeys(wanted)
        if (candidate.name, control) not in have
    )


def _reading(arms: Sequence[Arm]) -> list[Arm]:
    """Candidates that read the maps of a method."""
    return [arm for arm in arms if arm.kind == CANDIDATE and reads_maps(arm) and maps_of(arm.options) == OWN]


def _with_maps(arms: Sequence[Arm], maps: str) -> tuple[Arm, ...]:
    """For every use that reads maps a candidate with other maps, `oracle` or `self`, unless there is one."""
    if not (reading := _reading(arms)):
        raise SalpipeError(f"--{maps}: no candidate reads maps; add --uses zoom")
    if maps == SELF:
        # their pretraining would need a baseline of the source pairs
        reading = [arm for arm in reading if arm.options.get("init") != "full"]
    made: list[Arm] = []
    for arm in reading:
        have = [other for other in (*arms, *made) if maps_of(other.options) == maps]
        if not any(same_use(arm.options, other.options) for other in have):
            own = {name: value for name, value in arm.options.items() if name not in MAP_SOURCES}
            made.append(Arm(f"{maps}-{arm.name}", {**own, "maps": maps}))
    return tuple(made)


def contrasts(arms: Sequence[Arm]) -> list[Question]:
    """The contrasts to be made: each candidate with its reference, then with its own controls, then each control with
    its candidate's reference. A control of another candidate differs in more than its maps, so no contrast is made.
    """
    first = first_reference(arms)
    references = {arm.name: arm.reference or first for arm in arms if arm.kind == CANDIDATE}
    controls = [arm for arm in arms if arm.kind == CONTROL]
    return [
        *(Question(name, against, REFERENCE) for name, against in references.items()),
        *(Question(name, arm.name, CONTROL) for name in references for arm in controls if arm.of == name),
        *(Question(arm.name, references.get(arm.of, first), DESCRIPTIVE) for arm in controls),
    ]


def with_candidates(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms, every control with its candidate, which is inferred from the options if it is not named.

    Raises:
        SalpipeError: a control that differs from every candidate, or from the one named, in more than its maps.
    """
    return tuple(_checked(arm, arms) if arm.kind == CONTROL else arm for arm in arms)


def _checked(arm: Arm, arms: Sequence[Arm]) -> Arm:
    candidates = {a.name: a for a in arms if a.kind == CANDIDATE}
    if not arm.of:
        equal = [a for a in candidates.values() if reads_maps(a) and not differing_options(a.options, arm.options)]
        equal.sort(key=lambda a: maps_of(a.options) != OWN)
        if not equal:
            raise SalpipeError(
                f"arm {arm.name}: no candidate has the same options but maps, so it is not a control; name its "
                'candidate, as in of = "half", or give that candidate the same options'
            )
        arm = replace(arm, of=equal[0].name)
    if arm.of not in candidates:
        raise SalpipeError(f"arm {arm.name}: its candidate {arm.of} is not among the candidates; add --arm {arm.of}")
    own = candidates[arm.of]
    if not reads_maps(own):
        raise SalpipeError(
            f"arm {arm.name}: {arm.of} reads no maps ({own.options.get('use') or own.options.get('arch')}), so it has "
            "no controls; leave it out"
        )
    if differing := differing_options(own.options, arm.options):
        raise SalpipeError(
            f"arm {arm.name}: {', '.join(differing)} differs from {arm.of}; a control differs from its candidate in "
            "maps alone, so leave it out"
        )
    source, maps = maps_of(own.options), maps_of(arm.options)
    if source not in STORED and maps in STORED:
        raise SalpipeError(
            f"arm {arm.name}: would read the stored maps of other images, and its candidate {arm.of} reads maps = "
            f"{source}; use {CENTER_PRIOR} or {UNIFORM}, or name a candidate that reads stored maps"
        )
    if maps == source:
        raise SalpipeError(
            f"arm {arm.name}: has the maps of its candidate {arm.of}; add maps = one of {', '.join(CONTROLS)}"
        )
    return arm


def _arm(entry: Entry) -> Arm:
    trained_first = is_plain(entry.options) and entry.options.get("init") == "full"
    return Arm(entry.name, entry.options, entry.kind or (REFERENCE if trained_first else CANDIDATE))


def _started(entries: Sequence[Entry], start: str | None) -> list[Entry]:
    """The entries, those of `init = full` with the run that they start from."""
    if start is None:
        return list(entries)
    starting = [entry for entry in entries if entry.options.get("init") == "full"]
    if not starting:
        raise SalpipeError(f"--from {start}: no arm starts from it; add --arm full")
    for entry in starting:
        if is_plain(entry.options):
            raise SalpipeError(
                f"--from {start}: arm {entry.name} needs a pretraining of its own; use --pretrain SHARDS instead"
            )
    return [replace(e, options={"start": start, **e.options}) if e in starting else e for e in entries]


def _with_reference(arms: Sequence[Arm], reference: str | None) -> tuple[Arm, ...]:
    """The arms with the comparison's reference first."""
    names = [arm.name for arm in arms]
    if reference is not None and reference not in names:
        raise SalpipeError(f"--reference {reference}: no such arm; there are {', '.join(names)}")
    if not names:
        raise SalpipeError("a comparison needs a candidate besides its controls; add --arm half")
    first = reference or ("baseline" if "baseline" in names else names[0])
    return (
        *(replace(arm, kind=REFERENCE) for arm in arms if arm.name == first),
        *(arm for arm in arms if arm.name != first),
    )


def _control(entry: Entry, arms: Sequence[Arm]) -> Arm:
    """A requested control, with the options of its candidate."""
    candidates = {arm.name: arm for arm in arms if arm.kind == CANDIDATE}
    if entry.of is None:
        return _checked(Arm(entry.name, entry.options, CONTROL), arms)
    of = entry.of or next((arm.name for arm in candidates.values() if reads_maps(arm)), "")
    if not of:
        raise SalpipeError(
            f"--arm {entry.text}: a control of the first candidate that reads maps, and none does; add --arm half"
        )
    if of not in candidates:
        if any(arm.name == of for arm in arms):
            raise SalpipeError(f"{entry.text}: {of} is the reference, which has no controls; name a candidate")
        raise SalpipeError(f"{entry.text}: its candidate {of} is not among the arms; add --arm {of}")
    arm = Arm(entry.name or f"{of}-{entry.options['maps']}", {**candidates[of].options, **entry.options}, CONTROL, of)
    return _checked(arm, arms)


def _refuse_repeated(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SalpipeError(f"arm {twice[0]} is named twice; rename one of them, as in --arm again={twice[0]}")
