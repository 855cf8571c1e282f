"""Memory: usable bytes within a container's limits, and the C library's reuse of large blocks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

KEEP = 1 << 30

# by the names that glibc reads from the environment: number of the option in malloc.h, and value
_OPTIONS = {"MALLOC_MMAP_THRESHOLD_": (-3, KEEP), "MALLOC_TRIM_THRESHOLD_": (-1, KEEP), "MALLOC_ARENA_MAX": (-8, 1)}

MALLOC = {name: str(value) for name, (_, value) in _OPTIONS.items()}
"""Environment of a process that does what `keep_large_blocks` does from its start, before it has threads."""

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def keep_large_blocks() -> bool:
    """Raise glibc's mmap and trim thresholds (mallopt(3)) to 1 GiB for this process; False with another C library.

    Otherwise every activation is mapped, zeroed page by page by the kernel and unmapped again: up to 40 % of an fp32
    forward pass of ResNet-50, as measured. All threads share one arena, because those of threads hold no block above
    64 MiB: backward passes of 16 frames through EfficientNet-Lite0 took half as long again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) for option, value in _OPTIONS.values())


def usable_memory() -> int:
    """Return the bytes of memory that all processes of this container, or of this machine, may use together."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _memory_limits():
        with suppress(OSError, ValueError):  # no limit: no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _memory_limits(root: Path = _CONTROL_GROUPS) -> Iterator[Path]:
    """Yield the files with memory limits of this process's control groups (v1 and v2) and their parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        controllers, group = line.split(":", 2)[1:]
        if controllers == "memory":
            folder, name = root / "memory", "memory.limit_in_bytes"
        elif not controllers:
            folder, name = root, "memory.max"
        else:
            continue
        yield folder / name
        for part in Path(group.lstrip("/")).parts:
            folder /= part
            yield folder / name
