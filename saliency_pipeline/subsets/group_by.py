"""Groups of images by their keys or a table (`--group-by`): one person, scene or patient."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saliency_pipeline.documents import remedy_for
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.subsets import matching
from saliency_pipeline.subsets.groups import Places
from saliency_pipeline.tables import read_table
from saliency_pipeline.text import shown

COLUMNS = ("key", "group")
"""Columns of a table of groups; others are ignored."""

TIME_LIMIT = 60.0
"""Seconds that a regular expression may take for all keys; some take exponential time."""

_LEVEL = re.compile(r"level:([0-9]{1,4})")
_TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


def groups_by(keys: Sequence[str], rule: str) -> Places:
    """The group of every image.

    Args:
        keys: keys of the n images, '/' separated.
        rule: one of

            - `level:N`: the N-th folder of a key, from 1, names the group;
            - the path of a table, CSV or (`.tsv`, `.tab`) separated by tabs, with the columns `key` and `group`;
            - a regular expression: its match in a key names the group; its first parenthesized group if it has one,
              else the whole match.

    Returns:
        (n,) int64: equal for images of one group, numbered from 0 in the order of first images; -1 for an image
        without a group. Groups span classes and folders: images of person 7 are one group whatever their class.

    Raises:
        SalpipeError: the rule is none of these, or no image is in a group.

    Example:
        >>> keys = ["cat/anna/1.jpg", "dog/anna/2.jpg", "cat/ben/1.jpg", "cat/3.jpg"]
        >>> groups_by(keys, "level:2").tolist()
        [0, 0, 1, -1]
        >>> groups_by(keys, "/a[a-z]*/").tolist()
        [0, 0, -1, -1]
    """
    if _LEVEL.fullmatch(rule):
        names, failed = _folders(keys, rule), "no key has that many folders; use a smaller level"
    elif table_of(rule):
        names, failed = _listed(keys, Path(rule)), "no image has one of its keys; 'salpipe show' lists keys"
    else:
        names, failed = _matched(keys, rule), "matches no key and is no file; use a pattern of keys"
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(name, len(numbers)) if name else -1 for name in names]
    if keys and not numbers:
        raise SalpipeError(f"--group-by {rule}: {failed}, such as {shown(keys[0])}")
    return np.array(groups, np.int64)


def check_rule(rule: str) -> None:
    """Check a rule before images are read.

    Raises:
        SalpipeError: it is none of those of `groups_by`.
    """
    groups_by([], rule)


def table_of(rule: str) -> bool:
    """True if a rule is the path of a table: of anything that exists and is no folder, or with a table's suffix."""
    if _LEVEL.fullmatch(rule):
        return False
    ends_so = os.path.splitext(rule)[1].lower() in _TABLES
    try:
        return ends_so or (os.path.exists(rule) and not os.path.isdir(rule))
    except ValueError:  # it holds a null byte
        return False


def anchored(rule: str | None) -> str | None:
    """The rule with the absolute path of its table."""
    return os.path.abspath(rule) if rule is not None and table_of(rule) else rule


def described(rule: str | None) -> str | None:
    """The rule as results store it, without the folder of its table."""
    return os.path.basename(rule) if rule is not None and table_of(rule) else rule


def _folders(keys: Sequence[str], rule: str) -> list[str | None]:
    level = int(rule.partition(":")[2])
    if level < 1:
        raise OptionError(f"--group-by {rule}: levels count from 1, the first folder of a key; use level:1 or more")
    folders = (key.split("/")[:-1] for key in keys)
    return [parts[level - 1] if len(parts) >= level else None for parts in folders]


def _listed(keys: Sequence[str], path: Path) -> list[str | None]:
    try:
        rows = read_table(path, COLUMNS, delimiter=_TABLES.get(path.suffix.lower(), ","))
    except OSError as error:
        raise SalpipeError(f"--group-by {path}: {error.strerror or error}; {remedy_for(error)}") from error
    except ValueError as error:
        raise SalpipeError(
            f"--group-by {path}: cannot be read as a table ({error!s:.200}); give CSV or TSV in UTF-8 with the columns "
            "'key' and 'group'"
        ) from error
    groups: dict[str, str] = {}
    for key, name in rows:
        if groups.setdefault(key, name) != name:
            raise SalpipeError(f"--group-by {path}: {shown(key)} is in two groups; leave one of them out")
    return [groups.get(key) for key in keys]


def _matched(keys: Sequence[str], pattern: str) -> list[str | None]:
    """Matches of a regular expression, searched in a process of its own that is killed after `TIME_LIMIT`."""
    if not pattern:
        raise OptionError("--group-by: is empty; use level:N, a table or a regular expression")
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-S", matching.__file__],
            input=json.dumps({"pattern": pattern, "keys": list(keys)}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIME_LIMIT,
            check=True,
        )
        matched = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        raise SalpipeError(
            f"--group-by {pattern}: takes more than {TIME_LIMIT:g} s for {len(keys):,} keys; remove nested "
            "repetitions, or use a table"
        ) from None
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        raise SalpipeError(f"--group-by {pattern}: cannot be searched ({error!s:.200}); use a table") from error
    if "error" in matched:
        raise OptionError(f"--group-by {pattern}: no regular expression ({matched['error']:.200}); escape it with \\")
    names: list[str | None] = matched["names"]
    return names
