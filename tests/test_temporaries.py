"""Temporary files: those of other writers are not touched while these are alive, and removed when they are dead."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saliency_pipeline import locks, temporaries
from saliency_pipeline.files import write_atomically
from saliency_pipeline.temporaries import exclusive, final_name, remove_stale_temporaries, temporary_name

ROOT = Path(__file__).parents[1]
LONG_AGO = time.time() - 2 * temporaries.ABANDONED


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Path]:
    """The temporary file of another process, which is writing it."""
    script = """
        import sys, time
        from pathlib import Path
        from saliency_pipeline.temporaries import exclusive, temporary_name
        path = temporary_name(Path("shard-00000.h5"))
        file = open(path, "xb", opener=exclusive)
        print(path, flush=True)
        time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        yield tmp_path / writer.stdout.readline().strip()
        writer.kill()


def left_by(folder: Path, *, host: str | None = None, name: str = "a") -> Path:
    """A temporary file that no process has open."""
    path = temporary_name(folder / name)
    if host:
        path = path.with_name(path.name.replace(temporaries._host(), host, 1))
    path.write_bytes(b"half")
    return path


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)


@pytest.mark.parametrize("name", ["shard-00000.h5", "a" * 255, "é" * 127, "\U0001f600" * 63])
def test_names_are_beside_the_file_never_the_same_and_not_too_long(tmp_path: Path, name: str) -> None:
    final = tmp_path / name
    names = [temporary_name(final) for _ in range(100)]
    assert len(set(names)) == 100
    assert {name.parent for name in names} == {tmp_path}
    assert all(each.name.startswith("tmp.") and each.name.endswith(name[:50]) for each in names)
    write_atomically(final, b"x")
    assert os.listdir(tmp_path) == [name]


def test_the_final_name_is_known(tmp_path: Path) -> None:
    assert final_name(temporary_name(tmp_path / "plan.json")) == tmp_path / "plan.json"
    assert final_name(Path("tmp.node.12.0.plan.json")) == Path("plan.json")
    assert final_name(Path("/")) == Path("/")


def test_hosts_with_dots_or_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for host, shown in {"node1.cluster.local": "node1-cluster-local", "": "localhost", "a" * 64: "a" * 32}.items():
        monkeypatch.setattr(temporaries.socket, "gethostname", lambda host=host: host)
        assert temporary_name(tmp_path / "a").name.startswith(f"tmp.{shown}.")
        left = left_by(tmp_path)
        assert remove_stale_temporaries(tmp_path) == [left]


@pytest.mark.parametrize("planted", ["file", "link", "dangling link"])
def test_nothing_is_written_to_what_is_there_already(tmp_path: Path, planted: str) -> None:
    target, name = tmp_path / "precious", tmp_path / "tmp.x"
    target.write_text("old")
    if planted == "file":
        name.write_text("old")
    else:
        name.symlink_to(target if planted == "link" else tmp_path / "new")
    with pytest.raises(FileExistsError), open(name, "xb", opener=exclusive):
        raise AssertionError
    assert target.read_text() == "old"
    assert not (tmp_path / "new").exists()


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_the_living_keep_theirs_in_whatever_container(living: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_namespace(process: int, number: int) -> None:
        raise ProcessLookupError

    # as a container sees the processes of another
    monkeypatch.setattr(os, "kill", another_namespace)
    assert remove_stale_temporaries(living.parent) == []
    monkeypatch.undo()
    own = temporary_name(living.parent / "b")
    with open(own, "xb", opener=exclusive):
        assert remove_stale_temporaries(living.parent) == []
        assert own.exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    script = """
        import os, signal
        from pathlib import Path
        from saliency_pipeline.files import write_atomically
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(Path("a.json"), "half")
    """
    (tmp_path / "a.json").write_text("old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment)
    assert done.returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.name != "a.json")
    assert remove_stale_temporaries(tmp_path) == [left]
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_only_temporary_files_are_removed(tmp_path: Path) -> None:
    host, random = temporaries._host(), "0123456789abcdef"
    kept = [
        f"tmp.{host}.{random}.",
        f"tmp.{host}.{random}",
        f"tmp.{host}.{random[1:]}.shard-00000.h5",
        f"tmp.{host}.{random.upper()}.shard-00000.h5",
        f"tmp.{host}.12.shard-00000.h5",
        f"x.tmp.{host}.{random}.shard-00000.h5",
        "shard-00000.h5",
        ".lock",
    ]
    for name in kept:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))
    (tmp_path / f"tmp.{host}.{random}.folder").mkdir()
    (tmp_path / f"tmp.{host}.{random}.link").symlink_to("shard-00000.h5")
    os.mkfifo(tmp_path / f"tmp.{host}.{random}.pipe")
    everything = sorted(os.listdir(tmp_path))
    stale = [left_by(tmp_path, name="a"), left_by(tmp_path, name="b")]
    assert remove_stale_temporaries(tmp_path) == sorted(stale)
    assert sorted(os.listdir(tmp_path)) == everything


@pytest.mark.parametrize("kind", ["no locks", "another host", "version 0.1.0"])
def test_where_locks_prove_nothing_the_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    left = left_by(tmp_path, host="another-host" if kind == "another host" else None)
    if kind == "no locks":
        without_locks(monkeypatch)
    elif kind == "version 0.1.0":
        left = left.rename(tmp_path / f"tmp.{temporaries._host()}.{2**70}.0.a")
    assert remove_stale_temporaries(tmp_path) == []
    os.utime(left, (LONG_AGO, LONG_AGO))
    assert remove_stale_temporaries(tmp_path) == [left]


def test_a_lock_holds_however_old_the_file_is(living: Path) -> None:
    os.utime(living, (LONG_AGO, LONG_AGO))
    other = living.rename(living.with_name(living.name.replace(temporaries._host(), "another-host", 1)))
    assert remove_stale_temporaries(living.parent) == []
    assert other.exists()


def test_a_file_removed_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, removed, flock = temporary_name(tmp_path / "a"), [], locks.fcntl.flock

    def clean_up_first(file: int, how: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(file, how)

    monkeypatch.setattr(locks.fcntl, "flock", clean_up_first)
    with open(path, "xb", opener=exclusive) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_cleaning_up_at_the_same_time_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = sorted(left_by(tmp_path) for _ in range(4))
    lstat = Path.lstat

    def lost(self: Path) -> os.stat_result:
        if self == left[2]:
            self.unlink()
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", lost)
    assert remove_stale_temporaries(tmp_path) == [left[0], left[1], left[3]]
    assert os.listdir(tmp_path) == []
