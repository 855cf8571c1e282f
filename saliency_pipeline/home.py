"""Home and cache folders that libraries write to; temporary ones where the user's are missing or not writable."""

from __future__ import annotations

import atexit
import os
import pwd
from contextlib import suppress
from pathlib import Path

_USER = ("LOGNAME", "USER", "LNAME", "USERNAME")


def provide_home() -> None:
    """Set environment variables so that libraries of this process and its workers have a writable home and cache.

    A user id without an entry in the password file, as in many containers, has no home: torch.hub, huggingface_hub
    and others would create a folder named "~" in the current one. With a read-only home Matplotlib warns at every
    start. An existing cache that is not writable is still read.
    """
    if not any(map(os.environ.get, _USER)):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"  # compilers name their caches after the user
    home, cache = os.path.expanduser("~"), os.environ.get("XDG_CACHE_HOME", "")
    if cache and not os.path.isabs(cache):
        del os.environ["XDG_CACHE_HOME"]  # the specification requires ignoring relative paths; libraries do not
    if not os.path.isabs(cache):
        cache = os.path.join(home, ".cache")
    if not os.path.isabs(home) or not _can_be_written(cache):
        _provide_temporary(home, cache)
    elif not _can_be_written(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")):
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(cache, "matplotlib"))


def cache_folder() -> Path:
    """Return the user's cache folder (`~/.cache/salpipe`), which may not be writable."""
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # there is no home directory
        folder = user_cache_path("salpipe")
        # older versions of the library return a path relative to a folder named "~", which must not be created
        if folder.is_absolute():
            return folder
    return Path(os.devnull, "salpipe")


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
    """Return whether a folder, or the nearest existing one above it, is writable."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
