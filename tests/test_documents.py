"""Documents: files that are not regular, too large, too deep or invalid are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saliency_pipeline.documents import (
    MAX_DEPTH,
    DocumentError,
    parse_json,
    parse_toml,
    read_json,
    read_regular,
    read_toml,
)


def test_json_and_toml_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, {"b": null}]}')
    (tmp_path / "a.toml").write_text("a = [1, {b = 2}]")
    (tmp_path / "link.json").symlink_to("a.json")
    assert read_json(tmp_path / "link.json") == {"a": [1, {"b": None}]}
    assert read_toml(tmp_path / "a.toml") == {"a": [1, {"b": 2}]}


def test_what_is_no_regular_file_neither_blocks_nor_fills_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DocumentError, match="not a regular file"):
            read_regular(path)
    with pytest.raises(OSError, match="directory"):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing")


def test_what_is_refused_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/proc/self/fd")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises((IsADirectoryError, DocumentError)):
            read_regular(path)
    assert os.listdir("/proc/self/fd") == before


def test_size_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(DocumentError, match="larger than 33,554,432 bytes"):
        read_regular(tmp_path / "sparse")
    (tmp_path / "four").write_bytes(b"1234")
    assert read_regular(tmp_path / "four", 4) == b"1234"
    with pytest.raises(DocumentError, match="larger than 3 bytes"):
        read_regular(tmp_path / "four", 3)
    assert read_regular("/proc/self/status")  # its reported size is 0


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_json_is_refused(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_json(opening * depth + "1" + closing * depth)


def test_the_depth_limit_is_inclusive() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000])
def test_deep_toml_is_refused(depth: int) -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_toml(b"a = " + b"[" * depth + b"]" * depth)
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_toml(b".".join([b"a"] * depth) + b" = 1")


@pytest.mark.parametrize("data", [b"{", b"\xff", b"", b"9" * 5_000])
def test_invalid_json_is_named(data: bytes) -> None:
    with pytest.raises(DocumentError, match="not valid JSON"):
        parse_json(data)


@pytest.mark.parametrize("data", [b"a =", b"a = '\xff'", b"a = 1\na = 2"])
def test_invalid_toml_is_named(data: bytes) -> None:
    with pytest.raises(DocumentError, match="not valid TOML"):
        parse_toml(data)
