"""Files are whole or absent, locks exclude, and only the dead are cleaned up after."""

import csv
import errno
import hashlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saliency_pipeline import files
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import (
    FolderLock,
    disk_errors_explained,
    publish,
    read_table,
    remove_stale_temporaries,
    sha256_of,
    temporary_name,
    write_atomically,
    write_table,
)

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


def test_temporary_names_are_beside_the_file_and_never_the_same(tmp_path):
    final = tmp_path / "shard-00000.h5"
    names = [temporary_name(final) for _ in range(100)]
    assert len(set(names)) == 100
    assert {name.parent for name in names} == {tmp_path}
    assert all(name.name.startswith("tmp.") and name.name.endswith(".shard-00000.h5") for name in names)
    assert f".{os.getpid()}." in names[0].name


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


def test_a_killed_writer_leaves_a_temporary_file_that_is_removed_later(tmp_path):
    script = """
        import os, signal
        from pathlib import Path
        from saliency_pipeline.files import temporary_name, write_atomically
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(Path("a.json"), "half")
    """
    (tmp_path / "a.json").write_text("old")
    assert run(script, cwd=tmp_path).returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.name != "a.json")
    assert remove_stale_temporaries(tmp_path) == [left]
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_only_temporaries_of_the_dead_of_this_host_are_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    dead, host = child.pid, files._host()
    stale = [f"tmp.{host}.{dead}.0.shard-00000.h5", f"tmp.{host}.{dead}.12.manifest.json", f"tmp.{host}.{2**70}.0.x"]
    kept = [
        f"tmp.{host}.{os.getpid()}.0.shard-00000.h5",
        f"tmp.{host}.1.0.shard-00001.h5",
        f"tmp.another-host.{dead}.0.shard-00000.h5",
        f"tmp.{host}x.{dead}.0.shard-00000.h5",
        f"tmp.{host}.{dead}.shard-00000.h5",
        f"tmp.{host}.{dead}.0.",
        f"x.tmp.{host}.{dead}.0.shard-00000.h5",
        "shard-00000.h5",
        ".lock",
    ]
    for name in (*stale, *kept):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"tmp.{host}.{dead}.3.folder").mkdir()
    assert remove_stale_temporaries(tmp_path) == sorted(tmp_path / name for name in stale)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, f"tmp.{host}.{dead}.3.folder"])
    assert remove_stale_temporaries(tmp_path) == []


def test_host_names_with_dots_do_not_confuse_names(monkeypatch, tmp_path):
    monkeypatch.setattr(files.socket, "gethostname", lambda: "node1.cluster.local")
    assert temporary_name(tmp_path / "a").name.startswith(f"tmp.node1-cluster-local.{os.getpid()}.")
    monkeypatch.setattr(files.socket, "gethostname", lambda: "")
    assert temporary_name(tmp_path / "a").name.startswith(f"tmp.localhost.{os.getpid()}.")


def test_two_exclusive_locks_exclude_each_other(tmp_path):
    with FolderLock(tmp_path), pytest.raises(SalpipeError) as raised, FolderLock(tmp_path):
        raise AssertionError
    assert str(raised.value).startswith(f"{tmp_path}: another run is writing there")
    (tmp_path / "other").mkdir()
    with FolderLock(tmp_path), FolderLock(tmp_path / "other"):
        pass


def test_shared_locks_exclude_exclusive_ones_alone(tmp_path):
    one, two = FolderLock(tmp_path, shared=True), FolderLock(tmp_path, shared=True)
    with one, two, pytest.raises(SalpipeError, match="another run is writing there"), FolderLock(tmp_path):
        raise AssertionError
    with FolderLock(tmp_path), pytest.raises(SalpipeError), FolderLock(tmp_path, shared=True):
        raise AssertionError


def test_a_lock_ends_with_its_block_or_its_process(tmp_path):
    lock = FolderLock(tmp_path)
    for _ in range(3):
        with pytest.raises(KeyError), lock:
            raise KeyError
    script = """
        import os, signal
        from pathlib import Path
        from saliency_pipeline.files import FolderLock
        with FolderLock(Path(".")):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(script, cwd=tmp_path).returncode == -signal.SIGKILL
    with FolderLock(tmp_path):
        pass


def test_a_lock_holds_against_other_processes(tmp_path):
    script = """
        from pathlib import Path
        from saliency_pipeline.errors import SalpipeError
        from saliency_pipeline.files import FolderLock
        try:
            with FolderLock(Path(".")):
                print("entered")
        except SalpipeError as error:
            print(error)
    """
    with FolderLock(tmp_path):
        message = "another run is writing there; wait until it ends or choose another folder"
        assert run(script, cwd=tmp_path).stdout == f".: {message}\n"
    assert run(script, cwd=tmp_path).stdout == "entered\n"


def _wait(ready, leave):
    ready.set()
    leave.wait(60)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    with FolderLock(tmp_path):
        child = context.Process(target=_wait, args=(ready, leave))
        child.start()
        assert ready.wait(60)
    try:
        with FolderLock(tmp_path):
            pass
    finally:
        leave.set()
        child.join()


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(files.fcntl, "flock", failing(errno.ENOLCK))
    with FolderLock(tmp_path):
        write_atomically(tmp_path / "a", b"x")
    monkeypatch.setattr(files.fcntl, "flock", failing(errno.EIO))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SalpipeError, match="cannot write"), FolderLock(tmp_path):
        raise AssertionError
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"cannot write .*gone/\.lock: No such file"), FolderLock(tmp_path / "gone"):
        raise AssertionError


def test_cleaning_up_at_the_same_time_does_no_harm(tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    for number in range(4):
        (tmp_path / f"tmp.{files._host()}.{child.pid}.{number}.a").write_bytes(b"x")
    lstat = Path.lstat

    def lost(self):
        if self.name.endswith(".2.a"):
            self.unlink()
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", lost)
    assert len(remove_stale_temporaries(tmp_path)) == 3
    assert os.listdir(tmp_path) == []


def test_a_table_holds_any_name(tmp_path: Path) -> None:
    names = ["a,b", 'say "no"', "two\nlines", "=1+1", "@x", "Vögel", ""]
    write_table(tmp_path / "t.csv", ("name", "number", "none"), [(name, 1 / 3, None) for name in names])
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"), newline="")))
    safe = {"=1+1": "'=1+1", "@x": "'@x"}
    assert rows == [["name", "number", "none"], *([safe.get(name, name), "0.333333", ""] for name in names)]
    write_table(tmp_path / "t.csv", ("name",), [("\ud800",)])
    assert (tmp_path / "t.csv").read_bytes() == b"name\n?\n"


HOSTILE = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=", "-", "--1", "+-1", "-1.5.2"]
PLAIN = ["", "a", "a=b", "cat-dog", "-1", "+1", "-1.5", "+2e-05", "-inf", "'", "'quoted'", "it's", '"a","b"', "a\nb"]
PLAIN += ["a\rb", "a\r\n=b", "1"]


def test_no_cell_is_a_formula_and_all_come_back(tmp_path):
    texts = [*HOSTILE, *PLAIN, *(f"'{text}" for text in HOSTILE), *(f"''{text}" for text in HOSTILE), "'-1"]
    write_table(tmp_path / "t.csv", ("key", "score"), [(text, -0.5) for text in texts])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        cells = [row["key"] for row in csv.DictReader(file)]
    for text, cell in zip(texts, cells, strict=True):
        assert cell == (f"'{text}" if text not in PLAIN else text)
        assert cell[:1] not in {*"=+-@\t\r\n\uff1d"} or text in PLAIN
    assert [(row["key"], row["score"]) for row in read_table(tmp_path / "t.csv")] == [(text, "-0.5") for text in texts]


def test_a_table_that_is_none_is_a_value_error(tmp_path):
    for data in (b"", b"\xff\xfe", b'key\n"' + b"x" * 200_000):
        (tmp_path / "t.csv").write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            read_table(tmp_path / "t.csv")
