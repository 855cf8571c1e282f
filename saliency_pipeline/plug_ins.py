"""What installed packages add to salpipe through entry points, and errors that name the package."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import one_line

_SALPIPE = Path(__file__).parent


@dataclass(frozen=True)
class PlugIn:
    """An imported entry point.

    Attributes:
        value: module and attribute, `module:attribute`.
        packages: the package that has it.
        label: what it is and of which package, for messages.
        loaded: the object, which is not checked.
    """

    value: str
    packages: str
    label: str
    loaded: object


def plug_in_names(group: str) -> list[str]:
    """Names of the entry points of a group, sorted; nothing of them is imported."""
    from importlib.metadata import entry_points  # slow

    return sorted({entry.name for entry in entry_points(group=group)})


def packages_with(group: str, name: str) -> list[str]:
    """Names of the packages that have an entry point, sorted."""
    from importlib.metadata import entry_points  # slow

    return sorted({entry.dist.name for entry in entry_points(group=group, name=name) if entry.dist})


def load_plug_in(group: str, kind: str, name: str, otherwise: str = "") -> PlugIn | None:
    """Import an entry point; returns None if no package has it.

    Args:
        group: entry point group.
        kind: what the group has, in the singular, for messages.
        name: name of the entry point.
        otherwise: another remedy, which ends the messages.

    Raises:
        SalpipeError: it cannot be imported, or several packages have it; the message names the packages.
    """
    from importlib.metadata import entry_points  # slow

    # an installation may list its entry points twice
    entries = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not entries:
        return None
    packages = ", ".join(packages_with(group, name)) or "a package"
    label = f"{kind} {name} of {packages}"
    if len(entries) > 1:
        raise SalpipeError(f"{label}: more than one; uninstall all packages but one of them{otherwise}")
    (entry,) = entries.values()
    with failures_named(label, "cannot be imported", otherwise):
        return PlugIn(entry.value, packages, label, entry.load())


@contextmanager
def failures_named(label: str, event: str, otherwise: str = "") -> Iterator[None]:
    """Raise an error of a package as SalpipeError, with the package's line where it was raised."""
    try:
        yield
    except (SalpipeError, MemoryError):
        raise
    except Exception as error:  # whatever a package raises
        # neither salpipe's own lines nor those where Python looks for a module or its attribute
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename[0] != "<"
            and "importlib" not in Path(frame.filename).parts
            and not Path(frame.filename).is_relative_to(_SALPIPE)
        ]
        where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SalpipeError(f"{label}: {event}{where} ({reason}); update or uninstall the package{otherwise}") from error
