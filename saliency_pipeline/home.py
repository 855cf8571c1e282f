"""The home and cache folders that libraries write to; temporary ones take the place of those that do not serve."""

from __future__ import annotations

import atexit
import os
import pwd
from contextlib import suppress

_USER = ("LOGNAME", "USER", "LNAME", "USERNAME")


def provide_home() -> None:
    """Give the libraries of this process and its workers a home and a cache folder, where the user has none.

    A user id without an entry in the password file, as containers have them, has no home: torch.hub, huggingface_hub
    and others would then make a folder named "~" in the current one. Where home is read-only Matplotlib warns at
    every start. A cache that is there is still read, also where it cannot be written.
    """
    if not any(map(os.environ.get, _USER)):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"  # compilers name their caches after the user
    home, cache = os.path.expanduser("~"), os.environ.get("XDG_CACHE_HOME", "")
    if cache and not os.path.isabs(cache):
        del os.environ["XDG_CACHE_HOME"]  # to be ignored by its specification, which libraries do not know
    if not os.path.isabs(cache):
        cache = os.path.join(home, ".cache")
    if not os.path.isabs(home) or not _can_be_written(cache):
        _provide_temporary(home, cache)
    elif not _can_be_written(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")):
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(cache, "matplotlib"))


def _provide_temporary(home: str, cache: str) -> None:
    import shutil
    import tempfile

    with suppress(OSError):  # no folder at all can be written
        temporary = tempfile.mkdtemp(prefix="salpipe-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        if not os.path.isabs(home):
            os.environ["HOME"] = temporary
        if not os.path.isabs(cache) or not os.path.isdir(cache):
            os.environ["XDG_CACHE_HOME"] = os.path.join(temporary, "cache")
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(temporary, "matplotlib"))


def _can_be_written(folder: str) -> bool:
    """Whether a folder, or the nearest one above it that is there, can be written to."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
