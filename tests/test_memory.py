"""Memory that a container allows this process."""

import os
from pathlib import Path

import pytest

from saliency_pipeline import memory


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": "1000", "a/b/memory.max": "max"}, 1000),
        ("9:cpu:/a\n4:memory:/a\n", {"memory/memory.limit_in_bytes": "5000", "memory/a/memory.limit_in_bytes": "7"}, 7),
        ("4:memory:/elsewhere\n0::/\n", {"memory/memory.limit_in_bytes": "5000"}, 5000),
        ("0::/\n", {}, None),
    ],
)
def test_a_containers_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], limit: int | None
) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    own, read = memory._memory_limits, Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path: groups if str(path) == "/proc/self/cgroup" else read(path, encoding="ascii")
    )
    monkeypatch.setattr(memory, "_memory_limits", lambda: own(tmp_path))
    assert memory.usable_memory() == (limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
