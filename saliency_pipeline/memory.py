"""Memory of this process: how much it may use, and the C library's reuse of large blocks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP = 1 << 30

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def keep_large_blocks() -> bool:
    """Raise glibc's mmap and trim thresholds to 1 GiB for this process; False where the C library is another one.

    Without it every activation is mapped, zeroed page by page by the kernel and unmapped again; measured, that is
    up to 40 % of an fp32 forward pass of ResNet-50. See mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))


def usable_memory() -> int:
    """How many bytes of memory the processes of this container may use together, or of this machine."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _memory_limits():
        with suppress(OSError, ValueError):  # there is none: no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _memory_limits(root: Path = _CONTROL_GROUPS) -> Iterator[Path]:
    """Files with the memory limits of this process's control groups, of version 1 or 2, and of those above them."""
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
