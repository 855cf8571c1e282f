"""Pipes, devices, links, sparse files and deep documents in place of an ordinary file."""

import os
from pathlib import Path


def make_odd(path: Path, kind: str) -> None:
    """Put what is no ordinary file in the place of one, which is removed.

    Args:
        path: the file, there or not.
        kind: `pipe`, `device`, `folder`, `dangling link`, `link to itself`, `sparse` (10 GiB), `deep` (brackets nested
            100,000 levels), `unreadable`, `empty` or `missing`.
    """
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 10 * 2**30)
    elif kind == "deep":
        path.write_text("[" * 100_000)
    elif kind == "unreadable":  # root reads it all the same
        path.touch(mode=0)
    elif kind == "empty":
        path.touch()
    else:
        assert kind == "missing", kind
