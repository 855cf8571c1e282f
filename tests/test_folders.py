"""Output folders: locks exclude and end with their holder, and nothing is written through a link inside."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saliency_pipeline import locks
from saliency_pipeline.errors import FolderInUseError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder, open_to_append
from saliency_pipeline.temporaries import temporary_name

ROOT = Path(__file__).parents[1]
NOBODY = 65534


def run(script: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


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
        from saliency_pipeline.folders import FolderLock
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
        from saliency_pipeline.folders import FolderLock
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


@pytest.mark.parametrize("code", [*sorted(errno.errorcode), 524])
def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", fail)
    notes, before = [], os.listdir("/proc/self/fd")
    if code == errno.EAGAIN:
        with pytest.raises(FolderInUseError), FolderLock(tmp_path):
            raise AssertionError
    else:
        with FolderLock(tmp_path, note=notes.append):
            write_atomically(tmp_path / "a", b"x")
        assert notes == [f"{tmp_path}: this file system has no locks; make sure that no other run is writing there"]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_system_that_cannot_lock_folders_still_has_locks(tmp_path, monkeypatch):
    flock = locks.fcntl.flock

    def files_alone(file, how):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    monkeypatch.setattr(locks.fcntl, "flock", files_alone)
    notes = []
    with FolderLock(tmp_path, note=notes.append), pytest.raises(FolderInUseError), FolderLock(tmp_path):
        raise AssertionError
    assert not notes


def test_removing_the_lock_file_does_not_release_the_lock(tmp_path):
    with FolderLock(tmp_path):
        (tmp_path / ".lock").unlink()
        for shared in (False, True):
            with pytest.raises(FolderInUseError), FolderLock(tmp_path, shared=shared):
                raise AssertionError
    with FolderLock(tmp_path):
        pass


def test_a_lock_file_removed_before_it_was_locked_is_not_the_lock(tmp_path, monkeypatch):
    flock, removed = locks.fcntl.flock, []

    def too_late(file, how):
        if not removed:
            removed.append((tmp_path / ".lock").unlink())
        flock(file, how)

    monkeypatch.setattr(locks.fcntl, "flock", too_late)
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("planted", ["link", "dangling link", "pipe"])
def test_a_lock_file_that_is_something_else_is_refused(tmp_path, planted):
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    if planted == "pipe":
        os.mkfifo(folder / ".lock")
    else:
        (folder / ".lock").symlink_to(other)
    if planted == "link":
        other.touch()
    expected = "not a regular file" if planted == "pipe" else "a symbolic link inside the output folder"
    with pytest.raises(SalpipeError, match=rf"out/\.lock: {expected}.*; remove it$"), FolderLock(folder):
        raise AssertionError
    assert other.exists() == (planted == "link")


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"cannot write .*gone/\.lock: No such file"), FolderLock(tmp_path / "gone"):
        raise AssertionError


def test_a_folder_that_may_not_be_listed_can_be_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nobody may not come here by the folders above
    user = os.geteuid()
    if user == 0:  # who may list every folder
        os.chown(tmp_path, NOBODY, -1)
    tmp_path.chmod(0o300)
    try:
        os.seteuid(user or NOBODY)
        with pytest.raises(PermissionError):
            os.listdir()
        with FolderLock(Path()):
            write_atomically(Path("a"), b"x")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_folder_inside_is_made_but_a_link_is_refused(tmp_path):
    for _ in range(2):
        make_subfolder(tmp_path / "receipts")
        assert (tmp_path / "receipts").is_dir()
    (tmp_path / "link").symlink_to("receipts")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    expected = {"link": "a symbolic link inside", "dangling": "a symbolic link inside", "file": "File exists"}
    for name, reason in expected.items():
        with pytest.raises(SalpipeError, match=reason):
            make_subfolder(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_what_is_appended_lands_in_no_other_place(tmp_path):
    def append(path):
        with open(open_to_append(path, 100), "a+b", buffering=0) as file:
            file.write(b"line\n")

    precious, log = tmp_path / "precious", tmp_path / "log"
    for _ in range(2):
        append(log)
    assert log.read_bytes() == b"line\nline\n"
    precious.write_bytes(b"old\n")
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe"):
        with pytest.raises(SalpipeError, match=r"remove it$"):
            append(tmp_path / name)
    os.link(precious, tmp_path / "hard")
    append(tmp_path / "hard")
    assert (tmp_path / "hard").read_bytes() == b"old\nline\n"
    assert precious.read_bytes() == b"old\n"
    assert not (tmp_path / "nowhere").exists()


def test_a_log_too_large_to_be_one_is_refused(tmp_path):
    with open(tmp_path / "log", "wb") as file:
        file.truncate(2**36)
    with pytest.raises(SalpipeError, match=r"log: larger than 100 bytes; remove it"):
        open_to_append(tmp_path / "log", 100)


def test_the_output_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(SalpipeError, match=r"link is a dangling link to elsewhere; choose another output"):
        make_output(tmp_path / "link" / "a" / "b")
    (tmp_path / "elsewhere").mkdir()
    make_output(tmp_path / "link" / "a" / "b")
    assert (tmp_path / "elsewhere" / "a" / "b").is_dir()
    with FolderLock(tmp_path / "link"):
        pass


@pytest.mark.parametrize("name", ["file", "file/a/b", "a" * 300, "new\nline/" + "a" * 300])
def test_an_output_folder_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(SalpipeError) as raised:
        make_output(tmp_path / name)
    assert "choose another output folder" in str(raised.value) or "File name too long" in str(raised.value)


def test_making_an_output_folder_removes_what_killed_runs_left(tmp_path):
    left = temporary_name(tmp_path / "out" / "plan.json")
    make_output(tmp_path / "out")
    left.touch()
    make_output(tmp_path / "out")
    assert not left.exists()


def test_folders_between_are_made_and_no_link_among_them_is_followed(tmp_path):
    make_subfolder(tmp_path / "a" / "b" / "c", inside=tmp_path)
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "x").symlink_to("a")
    with pytest.raises(SalpipeError, match=r"x: a symbolic link inside"):
        make_subfolder(tmp_path / "x" / "new" / "c", inside=tmp_path)
    assert not (tmp_path / "a" / "new").exists()
