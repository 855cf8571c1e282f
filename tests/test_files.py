"""Files are complete or absent, locks exclude, and only abandoned files are removed."""

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import (
    disk_errors_explained,
    publish,
    sha256_of,
    write_atomically,
    write_if_absent,
)
from saliency_pipeline.temporaries import temporary_name

ROOT = Path(__file__).parents[1]


def run(script: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


def failing(code: int):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    return fail


def test_it_needs_neither_torch_nor_h5py():
    done = run("import sys, saliency_pipeline.files; print({'torch', 'h5py', 'numpy'} & set(sys.modules))")
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_hash_of_a_file(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == sha256_of(str(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


def test_publish_moves_and_hashes(tmp_path):
    final = tmp_path / "a.bin"
    final.write_bytes(b"old")
    tmp = temporary_name(final)
    tmp.write_bytes(b"new")
    assert publish(tmp, final) == hashlib.sha256(b"new").hexdigest()
    assert final.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_publish_syncs_the_file_before_and_the_folder_after_the_move(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def note_sync(file):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        fsync(file)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("move"), replace(*paths)))
    tmp = temporary_name(tmp_path / "a")
    tmp.write_bytes(b"x")
    publish(tmp, tmp_path / "a")
    write_atomically(tmp_path / "b", "text")
    assert order == ["file", "move", "folder"] * 2


@pytest.mark.parametrize("data", [b"\x00\xff", "Grüße\n", b"", "x" * 1_000_000])
def test_write_atomically(tmp_path, data):
    path = tmp_path / "a"
    for _ in range(2):
        write_atomically(path, data)
        assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    tmp = temporary_name(path)
    tmp.write_bytes(b"new")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    message = f"disk full while writing {path}; free space and run the same command again"
    with pytest.raises(SalpipeError) as raised:
        write_atomically(path, "new")
    assert str(raised.value) == message
    with pytest.raises(SalpipeError) as raised:
        publish(tmp, path)
    assert str(raised.value) == message
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_disk_errors_are_one_line_each(tmp_path):
    expected = {
        errno.ENOSPC: "disk full while writing out/a; free space",
        errno.EDQUOT: "disk full while writing out/a; free space",
        errno.EFBIG: "file size limit reached while writing out/a; raise it (ulimit -f)",
        errno.EACCES: "cannot write out/a: Permission denied; put that right",
        errno.EROFS: "cannot write out/a: Read-only file system; put that right",
    }
    for code, beginning in expected.items():
        for path in (Path("out/a"), temporary_name(Path("out/a"))):
            with pytest.raises(SalpipeError) as raised, disk_errors_explained(path):
                failing(code)()
            assert str(raised.value).startswith(beginning)
            assert str(raised.value).endswith("and run the same command again")
            assert "\n" not in str(raised.value)


def test_other_errors_pass_unchanged():
    with pytest.raises(KeyError), disk_errors_explained(Path("a")):
        raise KeyError


def test_file_systems_that_cannot_sync_folders_are_no_reason_to_stop(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: failing(errno.EINVAL)() if os.path.isdir(f"/proc/self/fd/{file}") else fsync(file)
    )
    write_atomically(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


REFUSALS = [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, 524]


@pytest.mark.parametrize("code", [*REFUSALS, errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_system_that_cannot_sync_is_no_reason_to_stop_but_a_broken_disk_is(tmp_path, monkeypatch, code, what):
    path, fsync = tmp_path / "a", os.fsync
    tmp = temporary_name(path)
    tmp.write_bytes(b"new")

    def fail(file):
        if os.path.isdir(f"/proc/self/fd/{file}") == (what == "folder"):
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)
    if code in REFUSALS:
        write_atomically(tmp_path / "b", b"new")
        publish(tmp, path)
        assert path.read_bytes() == (tmp_path / "b").read_bytes() == b"new"
        return
    for write in (lambda: write_atomically(tmp_path / "b", b"new"), lambda: publish(tmp, path)):
        with pytest.raises(SalpipeError) as raised:
            write()
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("code", [None, errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS])
def test_what_somebody_else_wrote_first_stays(tmp_path, monkeypatch, code):
    if code:
        monkeypatch.setattr(os, "link", failing(code))
    for text in ("first", "second"):
        write_if_absent(tmp_path / "a", text)
        assert (tmp_path / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["a"]
    (tmp_path / "link").symlink_to("nowhere")
    write_if_absent(tmp_path / "link", "text")
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "link").read_text() == "text"


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("old")
    for name, link in (("a", os.symlink), ("b", os.link)):
        link(tmp_path / "precious", tmp_path / name)
        write_atomically(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "old"
