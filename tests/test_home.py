"""Users without a home, and homes that cannot be written: no folder named "~" is created, and no run stops."""

import os
import pwd
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saliency_pipeline import home
from saliency_pipeline.home import cache_folder
from saliency_pipeline.speeds import remembered_speeds
from tests.datasets.imagenets import write

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without any of the variables, in a separate folder; changes are undone."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that it is remembered
        monkeypatch.delenv(name)
    monkeypatch.setattr(home.atexit, "register", lambda *_, **__: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry in the password file."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_home_that_serves_is_left_alone(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(environment))
    monkeypatch.setenv("USER", "ada")
    before = dict(os.environ)
    home.provide_home()
    assert dict(os.environ) == before
    assert not list((environment / "tmp").iterdir())


@pytest.mark.parametrize("value", [None, "relative", "~", "/dev/null", "{}/file", "{}/file/below"])
def test_a_home_that_does_not_serve_is_replaced(
    environment: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    nobody(monkeypatch)
    if value is not None:
        monkeypatch.setenv("HOME", value.format(environment))
    home.provide_home()
    assert os.path.isabs(os.path.expanduser("~"))
    assert os.environ["XDG_CACHE_HOME"].startswith(str(environment / "tmp"))
    assert os.environ["MPLCONFIGDIR"].startswith(str(environment / "tmp"))
    assert os.environ["USER"] == f"uid-{os.getuid()}"
    assert remembered_speeds("key", ["a"], lambda: [2.0]) == {"a": 2.0}
    assert (cache_folder() / "speeds.json").is_file()
    assert not list((environment / "work").iterdir())


def test_a_relative_cache_folder_is_ignored_and_a_file_replaced(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(environment))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    home.provide_home()
    assert "XDG_CACHE_HOME" not in os.environ
    monkeypatch.setenv("XDG_CACHE_HOME", str(environment / "file"))
    home.provide_home()
    assert os.environ["XDG_CACHE_HOME"].startswith(str(environment / "tmp"))


def test_a_cache_that_cannot_be_written_is_still_read(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (environment / ".cache").mkdir()
    monkeypatch.setenv("HOME", str(environment))
    monkeypatch.setattr(home.os, "access", lambda path, mode: False)  # root may write everywhere
    home.provide_home()
    assert "XDG_CACHE_HOME" not in os.environ
    assert os.environ["MPLCONFIGDIR"].startswith(str(environment / "tmp"))


def test_without_any_folder_to_write_to_nothing_stops(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(monkeypatch)
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: os.mkdir(environment / "file" / "x"))
    home.provide_home()
    assert remembered_speeds("key", ["a"], lambda: [2.0]) == {"a": 2.0}
    assert not list((environment / "work").iterdir())


def test_a_command_of_a_user_without_a_home_runs_and_leaves_no_trace(environment: Path) -> None:
    write(environment / "photos", "cat/1.jpg", "dog/1.jpg")
    script = f"""
        import pwd, sys

        def unknown(uid):
            raise KeyError("getpwuid(): uid not found")

        pwd.getpwuid = unknown
        from saliency_pipeline.cli.main import main
        options = "--model resnet18 --weights none --size 32 --backend torch --max-rejects 100%".split()
        sys.argv = ["salpipe", "generate", {str(environment / "photos")!r}, "-o", "out", *options]
        main()
    """
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("salpipe: ") for line in done.stderr.splitlines()), done.stderr
    assert os.listdir(".") == ["out"]
    assert not list((environment / "tmp").glob("salpipe-*"))
