"""The environment of a command: closed streams, limits on memory."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_the_null_device(tmp_path: Path, closed: str) -> None:
    """Otherwise the next file that is opened would get the descriptor of a stream, and its output."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from saliency_pipeline.cli.main import provide_streams\n"
        "provide_streams()\n"
        "file = os.open('new', os.O_WRONLY | os.O_CREAT)\n"
        "print('out', flush=True)\n"
        "print('error', file=sys.stderr, flush=True)\n"
        "os.write(file, b'x')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shell = ["sh", "-c", f'exec "$0" script.py {closed}', sys.executable]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "new").read_bytes()) == (0, b"x")
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "error\n")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_limit_on_memory_is_answered_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("saliency_pipeline.models.source.registry.list_sources", fails)
    result = CliRunner().invoke(salpipe, ["models"])
    assert result.exit_code == 1
    assert result.stderr.startswith("salpipe: error: limit on memory reached (ulimit -v")
    assert result.stderr.count("\n") == 1
