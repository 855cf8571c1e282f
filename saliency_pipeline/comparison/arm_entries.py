"""Arms as the command line and TOML files name them: built-in arms, controls, and tables of options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.use_arms import maps_of, reads_maps, use_options
from saliency_pipeline.documents import read_toml
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.choices import FUSIONS
from saliency_pipeline.settings import option_name, settings_of
from saliency_pipeline.training.config import MAPS, NO_CONTROLS, ORACLE, SELF, TrainConfig, option
from saliency_pipeline.uses.registry import USES

CONTROLS = tuple(name for name in MAPS if name not in NO_CONTROLS)
"""Maps that a control reads instead of its candidate's."""

_HALF = {"arch": "modulated", "init": "half"}
BUILT_IN: dict[str, dict[str, Any]] = {
    "baseline": {"arch": "baseline"},
    "baseline-full": {"arch": "baseline", "init": "full"},
    "half": _HALF,
    "modulated": _HALF,
    "full": {"arch": "modulated", "init": "full"},
    "learned": {"arch": "learned"},
    **{name: {**_HALF, "fusion": name} for name in FUSIONS},
    **{name: use_options(name) for name in USES},
}
"""Arms that need no description: the options of `salpipe train` in which each differs from the others."""

Requested = Mapping[str, Mapping[str, Any]]
NONE_REQUESTED: Requested = {}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# decided by the comparison, for all arms alike
_SHARED = {"folds", "fold", "seed", "per_class", "limit", "device", "precision", "epochs", "inner_split"} | {
    "group_by",
    "search_duplicates",
    "allow_leaks",
}


@dataclass(frozen=True)
class Entry:
    """An arm as it is requested.

    Attributes:
        text: where it is requested, for messages.
        name: of the arm; empty for a control that is named after its candidate.
        options: fields of `TrainConfig`; of a control with `of` those that differ from its candidate's.
        is_control: true for a control.
        of: the candidate of a control, empty for the first that reads maps, None for the one with the same options.
        kind: `candidate` or `control` where a file sets it, else None.
    """

    text: str
    name: str
    options: dict[str, Any]
    is_control: bool = False
    of: str | None = None
    kind: str | None = None


def built_in_names() -> str:
    """Names of arms, for messages."""
    return (
        f"{', '.join(BUILT_IN)}, controls such as half-{CONTROLS[0]} ({', '.join(CONTROLS)}), and arms with other maps "
        f"such as {ORACLE}-zoom and {SELF}-zoom"
    )


def built_in(name: str, requested: Requested = NONE_REQUESTED) -> dict[str, Any] | None:
    """Options of a built-in arm: `NAME`, `USE:KEY=VALUE,...`, `oracle-ARM` or `self-ARM`; None for any other name.

    Args:
        name: of the arm.
        requested: options of arms that are requested by these names, such as `zoom` of `zoom:threshold=0.4`: they are
            meant rather than built-in ones, so that an arm and the same with other maps have equal parameters.

    Raises:
        OptionError: a parameter that the use does not have.
    """
    if name in requested:
        return dict(requested[name])
    if name in BUILT_IN:
        return dict(BUILT_IN[name])
    if name.partition(":")[0] in USES:
        return use_options(name)
    for maps in (ORACLE, SELF):
        own = built_in(name.removeprefix(f"{maps}-"), requested) if name.startswith(f"{maps}-") else None
        if own is not None and reads_maps(own) and "maps" not in own:
            return {**own, "maps": maps}
    return None


def text_entries(texts: Sequence[str]) -> list[Entry]:
    """The arms of `--arm` and `--uses`; those that refer to another one of them have its options.

    Raises:
        SalpipeError: see `text_entry`.

    >>> [entry.options["use"] for entry in text_entries(["oracle-mask", "mask:floor=0.5"])]
    ['mask:fill=mean,floor=0.5', 'mask:fill=mean,floor=0.5']
    """
    entries = [text_entry(text) for text in texts]
    requested = {entry.name: entry.options for entry in entries if "maps" not in entry.options}
    return [text_entry(text, requested) for text in texts]


def text_entry(text: str, requested: Requested = NONE_REQUESTED) -> Entry:
    """The arm of `--arm NAME` or `--arm NAME=ARM`; a use with parameters has by default the name of the use.

    Args:
        text: the option's value.
        requested: see `built_in`.

    Raises:
        SalpipeError: no such arm, or a name that no folder can have.
    """
    name, renamed, base = text.partition("=")
    if not renamed or ":" in name:
        name, renamed, base = text.partition(":")[0], "", text
    # the name alone stands for the built-in arm, so that it can be compared with one that has parameters
    options = built_in(base) if base in BUILT_IN else built_in(base, requested)
    if renamed or options is not None:
        _check_name(name)
    if options is not None:
        return Entry(text, name, options)
    if base in CONTROLS:
        return Entry(text, name if renamed else "", {"maps": base}, True, "")
    of, control = split_control(base)
    if not control or (reason := reason_without_controls(of)):
        reason = reason if control else f"no arm '{base}'; there are {built_in_names()}"
        raise SalpipeError(f"--arm {text}: {reason}")
    _check_name(name)
    return Entry(f"--arm {text}", name, {"maps": control}, True, of)


def split_control(name: str) -> tuple[str, str]:
    """Candidate and control of a name such as `half-mismatched`; both empty where it is none.

    >>> split_control("half-center-prior"), split_control("half")
    (('half', 'center-prior'), ('', ''))
    """
    for control in CONTROLS:
        if name.endswith(f"-{control}") and len(name) > len(control) + 1:
            return name.removesuffix(f"-{control}"), control
    return "", ""


def reason_without_controls(name: str) -> str:
    """Reason why a built-in arm has no controls; empty if it has some, or is not built in."""
    options = built_in(name)
    if options is None or reads_maps(options):
        return ""
    return f"{name} reads no maps, so it has no controls; use a control of an arm that does, such as half-mismatched"


def differing_options(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The options, as the command line spells them, in which two arms differ, but for `maps`."""
    missing = object()
    names = sorted({*first, *second} - {"maps"})
    return [option(name) for name in names if first.get(name, missing) != second.get(name, missing)]


def read_entries(path: Path, requested: Requested = NONE_REQUESTED) -> list[Entry]:
    """The arms of a TOML file, whose `like` may name arms that are requested elsewhere; see `built_in`.

    Raises:
        SalpipeError: it cannot be read, or holds an unknown arm or option.
    """
    try:
        tables = read_toml(path)["arm"]
        items = list(tables.items())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SalpipeError(f"{path}: holds no tables [arm.NAME] ({error}); see 'salpipe compare --help'") from error
    return [_table_entry(path, name, table, requested) for name, table in items]


def _table_entry(path: Path, name: str, table: Any, requested: Requested) -> Entry:
    if not isinstance(table, dict):
        raise SalpipeError(f"{path}: [arm.{name}] is not a table")
    _check_name(name)
    where, table = f"{path}: arm {name}", dict(table)
    like, kind, of = (table.pop(key, None) for key in ("like", "kind", "of"))
    if of is not None and not isinstance(of, str):
        raise SalpipeError(f"{where}: of = {of!r}; use the name of a candidate")
    if kind not in (None, "candidate", "control"):
        raise SalpipeError(f"{where}: kind {kind!r}; use candidate or control")
    options = {} if like is None else _like(where, like, requested)
    spelled = {option_name(TrainConfig, name): name for name in settings_of(TrainConfig)}
    for key, value in table.items():
        field = spelled.get(key)
        if field is None or field in _SHARED:
            why = "is the same for all arms" if field else "is not an option of 'salpipe train'"
            raise SalpipeError(f"{where}: {key} {why}; leave it out")
        options[field] = tuple(value) if isinstance(value, list) else value
    if "use" in table:
        options |= _used(where, table)
    if options.get("maps", MAPS[0]) not in MAPS:
        raise SalpipeError(f"{where}: maps = {options['maps']!r:.80}; use one of {', '.join(MAPS)}")
    is_control = kind == "control" or of is not None or maps_of(options) not in NO_CONTROLS
    if is_control and kind == "candidate":
        raise SalpipeError(f"{where}: kind 'candidate' with other maps than its own; an arm like that is a control")
    if is_control and maps_of(options) in NO_CONTROLS:
        raise SalpipeError(f"{where}: a control needs other maps; add maps = one of {', '.join(CONTROLS)}")
    return Entry(where, name, options, is_control, of, kind)


def _used(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a table's use, besides `init`."""
    if not isinstance(table["use"], str):
        raise SalpipeError(f"{where}: use = {table['use']!r:.80}; use one of {', '.join(USES)}")
    try:
        options = use_options(table["use"])
    except SalpipeError as error:
        raise SalpipeError(f"{where}: {error}") from error
    if table.get("arch", options["arch"]) != options["arch"]:
        raise SalpipeError(f"{where}: use {table['use']} trains arch = '{options['arch']}'; leave arch out")
    return {"use": None, **{name: value for name, value in options.items() if name != "init"}}


def _like(where: str, like: Any, requested: Requested) -> dict[str, Any]:
    """Options of the arm that a table starts from."""
    if isinstance(like, str):
        of, control = ("half", like) if like in CONTROLS else split_control(like)
        if (options := built_in(like, requested)) is not None:
            return options
        if control and (options := built_in(of, requested)) is not None and not reason_without_controls(of):
            return {**options, "maps": control}
    raise SalpipeError(f"{where}: like = '{like}' is no arm; there are {built_in_names()}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SalpipeError(f"arm {name!r}: use letters, digits, '.', '-' and '_'")
