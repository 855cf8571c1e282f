"""Pushes and pulls that are killed while files are sent, by the command line against a Hub on loopback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_pipeline.shards.verify import verify
from tests.hub.fake_hub import TOKEN, FakeHub
from tests.kills import ROOT

pytestmark = pytest.mark.slow


def started(hub: FakeHub, home: Path, *words: object) -> subprocess.Popen[str]:
    """A command whose library finds the Hub by its documented environment variables."""
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "saliency_pipeline.cli", *map(str, words)]
    return subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def killed(hub: FakeHub, process: subprocess.Popen[str], moment: int) -> None:
    """Kill a process when it transfers its n-th file, whose transfer then fails."""
    hub.on_transfer = lambda count: process.kill() if count == moment else None
    try:
        _, err = process.communicate(timeout=900)
    finally:
        hub.on_transfer = None
    assert process.returncode == -signal.SIGKILL, err


def test_killed_commands_resume(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    push = ("push", shards, "hf://org/figures", "--license", "mit", "-q")
    killed(hub, started(hub, tmp_path / "hf", *push), 2)
    assert len(hub.commits) == 1
    process = started(hub, tmp_path / "hf", *push)
    assert (process.communicate(timeout=900)[1], process.returncode) == ("", 0)
    assert len(hub.sent) == len(set(hub.sent)) == 3
    assert len(hub.commits) == 2
    hub.transfers = 0
    pull = ("pull", "hf://org/figures", "-o", tmp_path / "again", "-q")
    killed(hub, started(hub, tmp_path / "hf", *pull), 4)
    assert not (tmp_path / "again" / "manifest.json").exists()
    hub.downloads.clear()
    process = started(hub, tmp_path / "hf", *pull)
    assert (process.communicate(timeout=900)[1], process.returncode) == ("", 0)
    # the list of files, and what was missing
    assert len(hub.downloads) < 6
    assert not verify(tmp_path / "again", deep=True).problems
